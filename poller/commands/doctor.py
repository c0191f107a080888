"""``poller doctor``: what to paste into a report of a problem."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from poller.commands.command_line import FAILED, OK, config_option, examples, reports_errors


@click.command(
    epilog=examples(
        "poller doctor",
        "poller doctor -c /etc/poller/accounts.yaml > report.txt",
        "poller doctor --json | jq '.findings[] | select(.level != \"ok\")'",
    )
)
@config_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@reports_errors
def doctor(*, path: Path, as_json: bool) -> None:
    """Look at everything that a report of a problem should say, and at what often is the problem.

    Versions, limits, clock, file systems, permissions, the configuration, the daemon. It works with a
    configuration that is wrong, and without a daemon. It reads no secret, shows where secrets are kept and
    never what they are, and hides whatever else in the configuration could be one. Have a look at it
    all the same before you publish it: names of accounts, hosts and paths are in it.

    Exits with 1 if anything is an error.

    \b
    With --json, one object:
      at              when it was written
      worst           ok, warning or error
      findings        each: section, name, level, text, remedy
      configuration   each file as it is shown, by its path
    """
    from poller.clock import SystemClock
    from poller.commands.doctor_daemon import diagnose
    from poller.commands.doctor_screen import show_diagnosis
    from poller.commands.findings import worst_level
    from poller.logs import logging_to

    with logging_to(level="error", style="text"):
        diagnosis = diagnose(path, SystemClock())
    show_diagnosis(diagnosis, as_json=as_json)
    sys.exit(FAILED if worst_level(diagnosis.findings) == "error" else OK)
