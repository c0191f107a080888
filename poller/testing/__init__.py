"""What the authors of plug-ins and consumers need to test theirs: virtual time, the sink contract."""
