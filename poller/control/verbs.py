"""What an operator can ask of an outbox and have done to it; the same in the daemon and without one."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import orjson

from poller.clock import NS_PER_S, Clock, rfc3339
from poller.model import Record
from poller.outbox import DeadLetter, Outbox, inspection
from poller.outbox.values import Discard, Forget, Revive, Rewind, Rewound, Skip

Verb = Callable[[Mapping[str, Any]], Awaitable[Any]]
"""Takes the arguments of a request and returns what becomes the answer, as JSON.

Raises:
    ValueError: the arguments make no sense here; the text is for whoever asked.
"""

LOOK_AT_RECORDS = 20_000  # in one go, so that no commit waits for long


def outbox_verbs(outbox: Outbox, clock: Clock) -> dict[str, Verb]:
    """Return the verbs over an open outbox, by name."""
    verbs = _OutboxVerbs(outbox, clock)
    return {
        "outbox.ls": verbs.ls,
        "outbox.waiting": verbs.waiting,
        "outbox.dead": verbs.dead,
        "outbox.show": verbs.show,
        "outbox.replay": verbs.replay,
        "outbox.drop": verbs.drop,
        "outbox.vacuum": verbs.vacuum,
    }


class _OutboxVerbs:
    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock

    async def ls(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Every sink that has a place in the outbox, and the outbox itself."""
        ledger, stats = self._outbox.ledger, self._outbox.stats()
        sinks = []
        for name, cursor in sorted(ledger.cursors.items()):
            position = ledger.position(name)
            accepted_ns = await self._outbox.read(partial(inspection.accepted_after, position=position))
            sinks.append(
                {
                    "sink": name,
                    "position": position,
                    "backlog": ledger.backlog(name),
                    "oldest_s": None if accepted_ns is None else self._ago_s(accepted_ns),
                    "dead_letters": ledger.letters.get(name, 0),
                    "again": ledger.again.get(name, 0),
                    "dropped": cursor.dropped,
                    "absent_s": None
                    if cursor.absent_since_ns is None
                    else self._ago_s(cursor.absent_since_ns),
                }
            )
        return {
            "sinks": sinks,
            "first_position": stats.first_position,
            "last_position": stats.last_position,
            "used_bytes": stats.used_bytes,
            "max_bytes": stats.max_bytes,
            "is_full": stats.is_full,
        }

    async def waiting(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The oldest records that a sink has not acknowledged."""
        sink, limit = self._sink(arguments), arguments["limit"]
        rows = await self._outbox.read(
            partial(inspection.summaries, after=self._outbox.cursor(sink), limit=limit)
        )
        return [
            {
                "position": position,
                "id": id_,
                "kind": kind,
                "account": account,
                "sequence": sequence,
                "reason": reason,
                "accepted_at": rfc3339(accepted_ns),
            }
            for position, id_, kind, account, sequence, reason, accepted_ns in rows
        ]

    async def dead(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The oldest records that a sink refused, without their contents."""
        letters = await self._outbox.dead_letters(self._sink(arguments), limit=arguments["limit"])
        return [_letter(letter) for letter in letters]

    async def show(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """One record, by its id or its position: what it holds, who waits for it, who refused it."""
        named: str = arguments["record"]
        letters = await self._outbox.read(partial(inspection.letters_of, named=named))
        record, accepted_ns = await self._record(named)
        if record is None:
            if not letters:
                raise ValueError(
                    f"there is no record {named!r}; it may have been delivered and deleted since"
                )
            record = letters[0][1].record
        position = record.position
        held = self._outbox.ledger.holds(position) and accepted_ns is not None
        return {
            "position": position,
            "id": record.id,
            "accepted_at": None if accepted_ns is None else rfc3339(accepted_ns),
            "waits_for": [
                sink
                for sink in sorted(self._outbox.ledger.cursors)
                if held and self._outbox.cursor(sink) < position
            ],
            "refused_by": [{"sink": sink, **_letter(letter)} for sink, letter in letters],
            "record": orjson.loads(record.payload),
        }

    async def replay(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Let a sink have records again: everything since a time or from a position, or dead letters."""
        sink = self._sink(arguments)
        if "dead" in arguments:
            ids = arguments["dead"]
            count = await self._outbox.write(Revive(sink, None if ids is None else tuple(ids)))
            if ids and not count:
                raise ValueError(f"sink {sink!r} has no such dead letter, or is to get it already")
            return {"sink": sink, "dead_letters": count}
        first = self._outbox.stats().first_position
        if "since_s" in arguments:
            since_ns = self._clock.utc_ns() - round(arguments["since_s"] * NS_PER_S)
            wanted = await self._outbox.read(partial(inspection.first_since, at_ns=since_ns))
            wanted = self._outbox.last_position + 1 if wanted is None else wanted
            is_complete = None
        else:
            wanted = arguments["position"]
            is_complete = wanted >= first
        rewound: Rewound = await self._outbox.write(Rewind(sink, wanted - 1))
        return {
            "sink": sink,
            "before": rewound.before,
            "after": rewound.after,
            "records": rewound.records,
            "dead_letters": rewound.letters,
            "first_position": first,
            "is_complete": is_complete,
        }

    async def drop(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Give up a sink's dead letters, its backlog, or the place of one that is not configured any more."""
        sink, what = self._sink(arguments), arguments["what"]
        ledger = self._outbox.ledger
        if what == "cursor" and ledger.cursors[sink].absent_since_ns is None:
            raise ValueError(f"sink {sink!r} is configured; remove it from the configuration first")
        if arguments.get("is_trial"):
            ids = arguments.get("ids")
            count = ledger.letters.get(sink, 0) if what == "dead" else ledger.backlog(sink)
            return {"sink": sink, "what": what, "count": count if ids is None else len(ids)}
        match what:
            case "dead":
                ids = arguments.get("ids")
                count = await self._outbox.write(Discard(sink, None if ids is None else tuple(ids)))
                if ids and not count:
                    raise ValueError(f"sink {sink!r} has no such dead letter")
            case "backlog":
                count = await self._outbox.write(Skip(sink))
            case "cursor":
                count = await self._outbox.write(Forget(sink))
            case _:
                raise ValueError(f"cannot drop {what!r}")
        return {"sink": sink, "what": what, "count": count}

    async def vacuum(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Give free pages of the file back to the disk."""
        return {"freed_bytes": await self._outbox.vacuum()}

    def _sink(self, arguments: Mapping[str, Any]) -> str:
        sink: str = arguments["sink"]
        known = self._outbox.ledger.cursors
        if sink not in known:
            near = difflib.get_close_matches(sink, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"no sink {sink!r} has a place in this outbox; {hint}sinks: {', '.join(sorted(known))}"
            )
        return sink

    async def _record(self, named: str) -> tuple[Record | None, int | None]:
        """Return a record that is still kept, and when it was accepted."""
        if named.isdecimal():
            return await self._outbox.read(partial(inspection.at, position=int(named)))
        last = self._outbox.last_position
        first = self._outbox.stats().first_position
        # From the newest back: there is no index on ids, and somebody asks for what happened lately.
        for after in range(last, first - 1, -LOOK_AT_RECORDS):
            found = await self._outbox.read(
                partial(inspection.with_id, id=named, after=after - LOOK_AT_RECORDS, to=after)
            )
            if found[0] is not None:
                return found
        return None, None

    def _ago_s(self, at_ns: int) -> float:
        return round(max(0, self._clock.utc_ns() - at_ns) / NS_PER_S, 3)


def _letter(letter: DeadLetter) -> dict[str, Any]:
    record = letter.record
    return {
        "position": record.position,
        "id": record.id,
        "account": record.account,
        "sequence": record.sequence,
        "reason": letter.reason,
        "refused_at": rfc3339(letter.at_ns),
        "again": letter.again,
    }
