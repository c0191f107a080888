"""Run the command line with ``python -m poller``."""

from poller.cli import main

main()
