"""What operators can do, on a real outbox: exact values."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from poller.control import Verb, outbox_verbs
from poller.metrics import Metrics
from poller.outbox import DeadLetter, Outbox
from poller.testing.sink_contract import ids, make_records
from poller.testing.virtual_time import VirtualClock


@pytest.fixture
async def outbox(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[Outbox]:
    """Ten records, accepted a minute after one another; ``fast`` has all, ``slow`` has four and refused one."""
    import asyncio

    opened = await Outbox.open(tmp_path / "outbox.db", clock, metrics=Metrics())
    await opened.register({"fast": "oldest", "slow": "oldest"})
    for record in make_records(10):
        await asyncio.sleep(60)
        await opened.accept(None, [record])
    await opened.acknowledge("fast", 10)
    [refused] = [
        r for r in await opened.next_batch("slow", max_records=10, max_bytes=1 << 20) if r.position == 3
    ]
    await opened.acknowledge("slow", 4, [DeadLetter(refused, "too large")])
    yield opened
    await opened.close()


@pytest.fixture
def verbs(outbox: Outbox, clock: VirtualClock) -> dict[str, Verb]:
    return outbox_verbs(outbox, clock)


def place(answer: Any, sink: str) -> dict[str, Any]:
    [found] = [row for row in answer["sinks"] if row["sink"] == sink]
    return dict(found)


async def test_ls_has_a_line_a_sink(verbs: dict[str, Verb]) -> None:
    answer = await verbs["outbox.ls"]({})
    assert place(answer, "slow") == {
        "sink": "slow",
        "position": 4,
        "backlog": 6,
        "oldest_s": 300.0,
        "dead_letters": 1,
        "again": 0,
        "dropped": 0,
        "absent_s": None,
    }
    assert place(answer, "fast")["backlog"] == 0
    assert place(answer, "fast")["oldest_s"] is None
    assert (answer["first_position"], answer["last_position"], answer["is_full"]) == (1, 10, False)


async def test_what_waits_and_what_was_refused(verbs: dict[str, Verb]) -> None:
    waiting = await verbs["outbox.waiting"]({"sink": "slow", "limit": 2})
    assert [(row["position"], row["id"]) for row in waiting] == [
        (5, make_records(10)[4].id),
        (6, make_records(10)[5].id),
    ]
    [letter] = await verbs["outbox.dead"]({"sink": "slow", "limit": 10})
    assert (letter["position"], letter["reason"], letter["again"]) == (3, "too large", False)


@pytest.mark.parametrize("named", ["3", make_records(3)[2].id])
async def test_show_says_who_waits_and_who_refused(verbs: dict[str, Verb], named: str) -> None:
    answer = await verbs["outbox.show"]({"record": named})
    assert answer["record"] == make_records(3)[2].document
    assert answer["waits_for"] == []
    assert [(row["sink"], row["reason"]) for row in answer["refused_by"]] == [("slow", "too large")]
    assert (await verbs["outbox.show"]({"record": "7"}))["waits_for"] == ["slow"]


@pytest.mark.parametrize("named", ["11", "0", "no-such-id", ""])
async def test_show_of_what_is_not_there(verbs: dict[str, Verb], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"there is no record {named!r}")):
        await verbs["outbox.show"]({"record": named})


@pytest.mark.parametrize(
    ("since_s", "position"), [(0.0, 9), (1.0, 9), (61.0, 8), (179.0, 7), (541.0, 0), (1e9, 0)]
)
async def test_replay_since_a_time_goes_back_to_its_first_record(
    outbox: Outbox, verbs: dict[str, Verb], since_s: float, position: int
) -> None:
    answer = await verbs["outbox.replay"]({"sink": "fast", "since_s": since_s})
    assert outbox.cursor("fast") == answer["after"] == position
    assert answer["records"] == outbox.backlog("fast") == 10 - position
    if answer["records"]:
        again = await outbox.next_batch("fast", max_records=100, max_bytes=1 << 20)
        assert ids(again) == ids(make_records(10)[position:])


async def test_replay_from_a_position_takes_its_dead_letters_back(
    outbox: Outbox, verbs: dict[str, Verb]
) -> None:
    answer = await verbs["outbox.replay"]({"sink": "slow", "position": 2})
    assert (answer["before"], answer["after"], answer["records"], answer["dead_letters"]) == (4, 1, 3, 1)
    assert answer["is_complete"] is True
    assert await outbox.dead_letters("slow") == []
    assert outbox.backlog("fast") == 0


async def test_replay_forward_is_none(outbox: Outbox, verbs: dict[str, Verb]) -> None:
    answer = await verbs["outbox.replay"]({"sink": "slow", "position": 9})
    assert (answer["records"], outbox.cursor("slow")) == (0, 4)


async def test_replay_of_dead_letters_flags_them(outbox: Outbox, verbs: dict[str, Verb]) -> None:
    assert await verbs["outbox.replay"]({"sink": "slow", "dead": None}) == {"sink": "slow", "dead_letters": 1}
    assert outbox.again("slow") == 1
    assert place(await verbs["outbox.ls"]({}), "slow")["again"] == 1
    with pytest.raises(ValueError, match="has no such dead letter"):
        await verbs["outbox.replay"]({"sink": "slow", "dead": ["nobody"]})


async def test_drops_are_counted_and_a_trial_changes_nothing(outbox: Outbox, verbs: dict[str, Verb]) -> None:
    for what, count in (("dead", 1), ("backlog", 6)):
        arguments = {"sink": "slow", "what": what, "ids": None}
        trial = await verbs["outbox.drop"]({**arguments, "is_trial": True})
        assert trial["count"] == count
    assert (outbox.backlog("slow"), outbox.stats().dropped["slow"]) == (6, 0)
    for what in ("dead", "backlog"):
        await verbs["outbox.drop"]({"sink": "slow", "what": what, "ids": None})
    assert (outbox.backlog("slow"), outbox.stats().dropped["slow"]) == (0, 7)
    assert await outbox.dead_letters("slow") == []


async def test_a_place_is_forgotten_only_if_it_is_not_configured(
    outbox: Outbox, verbs: dict[str, Verb]
) -> None:
    with pytest.raises(ValueError, match="sink 'slow' is configured; remove it from the configuration first"):
        await verbs["outbox.drop"]({"sink": "slow", "what": "cursor"})
    await outbox.register({"fast": "oldest"})
    answer = await verbs["outbox.drop"]({"sink": "slow", "what": "cursor"})
    assert answer["count"] == 6
    assert [row["sink"] for row in (await verbs["outbox.ls"]({}))["sinks"]] == ["fast"]


async def test_an_unknown_sink_is_named_with_the_one_that_was_meant(verbs: dict[str, Verb]) -> None:
    for verb in ("waiting", "dead", "replay", "drop"):
        with pytest.raises(ValueError, match=r"no sink 'slwo' .* did you mean 'slow'"):
            await verbs[f"outbox.{verb}"]({"sink": "slwo", "limit": 1, "what": "dead", "position": 1})


async def test_a_vacuum_says_what_the_disk_got_back(outbox: Outbox, verbs: dict[str, Verb]) -> None:
    answer = await verbs["outbox.vacuum"]({})
    assert answer["freed_bytes"] > 0  # the log's at least
    assert outbox.backlog("slow") == 6
