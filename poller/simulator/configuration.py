"""An ``accounts.yaml`` with keys for the simulated fleet, as a user would have written it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from poller.simulator.keys import SimulatedAccount
from poller.simulator.settings import SimulatorSettings
from poller.simulator.sub_accounts import email_of

MARK: Final = (
    "# Written by the simulator, with keys that open nothing else. It may be written again: change a copy."
)
MANY: Final = 20  # from so many accounts on, half of them stand in an included file
INCLUDED: Final = "fleet.d/simulated.yaml"


class NotOurs(Exception):
    """The directory has a file in the way that the simulator did not write."""


def write_config(
    directory: Path,
    url: str,
    accounts: Sequence[SimulatedAccount],
    settings: SimulatorSettings,
    *,
    interval: str,
    master: SimulatedAccount | None = None,
) -> Path:
    """Write ``accounts.yaml``, its include and ``secrets/`` and return the path of the first.

    What the simulator wrote before is replaced. Keys are readable by their owner only.

    Args:
        url: where the simulator listens.
        interval: between two polls of an account, such as ``10s``.
        master: write that it is asked for its sub-accounts, and which of them each account is.

    Raises:
        NotOurs: there is a file of that name that somebody else wrote. Nothing was changed.
        OSError: the files cannot be written.
    """
    main, included = directory / "accounts.yaml", directory / INCLUDED
    for path in (main, included):
        if path.exists() and not path.read_text(errors="replace").startswith(MARK):
            raise NotOurs(
                f"{path} was not written by the simulator; move it away or choose another directory"
            )
    for folder in (directory, directory / "secrets", directory / "data", included.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for account in (*accounts, master) if master else accounts:
        for name, content in _secret_files(account):
            _write(directory / "secrets" / name, content)
    here = len(accounts) if len(accounts) < MANY else (len(accounts) + 1) // 2
    if here < len(accounts):
        _write(included, f"{MARK}\n{_accounts(accounts[here:], '../secrets', master)}")
    else:
        included.unlink(missing_ok=True)
    include = "include: [fleet.d/*.yaml]\n" if here < len(accounts) else ""
    discover = "" if master is None else _discover(master)
    fleet = _accounts(accounts[:here], "secrets", master)
    _write(main, f"{MARK}\n{_head(url, settings, interval)}{discover}{fleet}{include}{_TAIL}")
    return main


def _head(url: str, settings: SimulatorSettings, interval: str) -> str:
    return f"""\
exchange:
  base_url: {json.dumps(url)}
  recv_window: 10s
budget:
  weight_limit: {settings.weight_limit}
  share: 90%
  window: {settings.window_s:.9g}s
defaults: {{interval: {json.dumps(interval)}, btc_valuation: true}}
"""


_TAIL: Final = """\
sinks:
  history: {kind: sqlite, path: data/history.db}
  log: {kind: jsonl, path: data/records.jsonl}
outbox: {path: data/outbox.db}
"""


def _discover(master: SimulatedAccount) -> str:
    lines = ["discover:", "  main:", *_keys(master, "secrets"), "    interval: 1h"]
    return "\n".join(lines) + "\n"


def _accounts(accounts: Sequence[SimulatedAccount], secrets: str, master: SimulatedAccount | None) -> str:
    lines = ["accounts:"]
    for account in accounts:
        lines += [f"  {account.name}:", *_keys(account, secrets), f"    labels: {{key: {account.kind}}}"]
        if master is not None:
            lines.append(f"    sub_account: {email_of(account.name)}")
    return "\n".join(lines) + "\n"


def _keys(account: SimulatedAccount, secrets: str) -> list[str]:
    [(key, _), (secret, _)] = _secret_files(account)
    return [
        f"    api_key: file:{secrets}/{key}",
        f"    {'secret' if account.kind == 'hmac' else 'private_key'}: file:{secrets}/{secret}",
    ]


def _secret_files(account: SimulatedAccount) -> list[tuple[str, str]]:
    ending = "secret" if account.kind == "hmac" else "pem"
    return [(f"{account.name}.key", account.api_key), (f"{account.name}.{ending}", account.secret)]


def _write(path: Path, text: str) -> None:
    """Write a file that only its owner can read, also if it was there with other rights."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
