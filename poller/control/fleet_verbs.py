"""What can be asked about the fleet of a running daemon, and about the balances in an outbox."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from poller.clock import rfc3339
from poller.control.verbs import Verb
from poller.control.wire import as_json
from poller.outbox import Outbox, tables
from poller.outbox.codec import describe_baseline
from poller.overview import AccountDetail, Happening, Overview, in_slices

NAMED_ACCOUNTS = 20  # in a message; a fleet may have thousands


def fleet_verbs(overview: Overview) -> dict[str, Verb]:
    """Return the verbs over a running fleet, by name."""
    verbs = _FleetVerbs(overview)
    return {
        "fleet.status": verbs.status,
        "fleet.accounts": verbs.accounts,
        "fleet.explain": verbs.explain,
        "fleet.happenings": verbs.happenings,
    }


def balances_verbs(outbox: Outbox) -> dict[str, Verb]:
    """Return the verb over the balances that an open outbox holds, by name."""
    return {"fleet.balances": _Balances(outbox).balances}


class _FleetVerbs:
    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    async def status(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The whole at a glance, every egress address and every sink."""
        return {
            "status": self._overview.status(),
            "egress": list(self._overview.egress()),
            "sinks": list(self._overview.sinks()),
        }

    async def accounts(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The accounts about which something changed after a number, the next number, and all names."""
        number, changed = self._overview.changed(after=_number(arguments))
        names, at = list(self._overview.names()), self._overview.at()
        # Encoded part by part as well; what changes meanwhile comes again with the next question.
        parts = [orjson.dumps(part, default=as_json) async for part in in_slices(self._overview, changed)]
        accounts = b"[%s]" % b",".join(inner for part in parts if (inner := part[1:-1]))
        return {"number": number, "at": at, "names": names, "accounts": orjson.Fragment(accounts)}

    async def explain(self, arguments: Mapping[str, Any]) -> AccountDetail:
        """One account, whole."""
        name = arguments["account"]
        if not isinstance(name, str):
            raise TypeError("account has to be a text")
        detail = self._overview.account(name)
        if detail is None:
            raise ValueError(unknown_account(name, self._overview.names()))
        return detail

    async def happenings(self, arguments: Mapping[str, Any]) -> list[Happening]:
        """What happened after a number, oldest first."""
        return list(self._overview.happenings(after=_number(arguments)))


class _Balances:
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def balances(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What every account holds, as last accepted; those that were never accepted are not listed."""
        rows = await self._outbox.read(tables.baselines)
        # Of thousands of accounts this takes a while: neither commits nor polls wait for it.
        return await asyncio.to_thread(_documents, rows)


def unknown_account(name: str, known: Sequence[str]) -> str:
    """Say that there is no account of a name, with the one that was likely meant."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = ", ".join([*sorted(known)[:NAMED_ACCOUNTS], *["..."] * (len(known) > NAMED_ACCOUNTS)])
    return f"there is no account {name[:80]!r}; {hint}accounts: {shown}"


def _number(arguments: Mapping[str, Any]) -> int:
    after = arguments.get("after", 0)
    if not isinstance(after, int) or isinstance(after, bool) or after < 0:
        raise TypeError("after has to be a number from 0 on")
    return after


def _documents(rows: Sequence[tuple[str, bytes]]) -> list[dict[str, Any]]:
    return [_document(account, encoded) for account, encoded in sorted(rows)]


def _document(account: str, encoded: bytes) -> dict[str, Any]:
    try:
        found = describe_baseline(account, encoded)
    except ValueError:
        # Said, and not left out: whoever adds the others up has to know.
        return {"account": account, "sequence": 0, "state": "damaged", "since": None, "balances": []}
    since_ns, balances = found.pop("since_ns"), found.pop("balances")
    return {**found, "since": rfc3339(since_ns) if since_ns else None, "balances": balances}
