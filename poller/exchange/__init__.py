"""Everything that knows the exchange: signing, sending, what an answer means, its clock."""
