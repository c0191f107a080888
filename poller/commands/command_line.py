"""What all commands share: exit codes, the option that names the configuration, errors as messages."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Never

import click

from poller.errors import ConfigError, EgressLocked, OutboxError, OutboxLocked, SinkNotOpened

OK = 0
FAILED = 1  # something that was asked for did not succeed, or is not so
USAGE = 2  # the command line or the configuration has to be corrected
UNAVAILABLE = 69  # what has to be there when the daemon starts is not: a sink (EX_UNAVAILABLE)
OUTBOX = 74  # the outbox cannot be used, or failed (EX_IOERR)
LOCKED = 75  # another daemon owns the outbox or an egress address; try again when it is gone (EX_TEMPFAIL)

EXIT_CODES = """\b
Exit codes:
  0    done
  1    no: an account failed in a sweep, a key in a check, a secret cannot be reached now, a fleet does not
       fit, the demo found a mismatch, the daemon is not ready or there is none, the doctor found an error
  2    the command line or the configuration has to be corrected
  69   a sink with on_start: fail cannot be opened
  74   the outbox cannot be used, or failed while running
  75   another daemon owns the outbox or an egress address
  130  a second Ctrl-C ended it at once (143: a second SIGTERM)"""


def examples(*lines: str) -> str:
    """Return an epilogue for --help that shows how the command is used."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


config_option = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("accounts.yaml"),
    show_default=True,
    envvar="POLLER_CONFIG",
    help="The configuration.",
)


def reports_errors(
    command: Callable[..., None], *, then: str = "correct the configuration"
) -> Callable[..., None]:
    """Turn a user's mistake into a message and an exit code, never a traceback.

    Args:
        then: said after how many problems the configuration has.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ConfigError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            count = len(error.problems)
            exit_with(USAGE, f"{count} problem{'s' if count > 1 else ''}; {then}")
        except (OutboxLocked, EgressLocked) as error:
            exit_with(LOCKED, f"error: {error}")
        except SinkNotOpened as error:
            exit_with(UNAVAILABLE, f"error: {error}")
        except OutboxError as error:
            exit_with(OUTBOX, f"error: {error}")
        except BrokenPipeError:
            sys.stderr.close()  # whoever read us has gone; Python would complain while it ends
            sys.exit(OK)

    return wrapped


def starts_or_reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a mistake into a message, as ``reports_errors``, of a command that polls if there is none."""
    return reports_errors(command, then="nothing was started")


def exit_with(code: int, message: str) -> Never:
    """End the command with a message on stderr."""
    click.echo(message, err=True)
    sys.exit(code)
