"""The outbox against a model of a few lines, in any order of what can happen to it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from poller.metrics import Metrics
from poller.model import Baseline, Record
from poller.outbox import DeadLetter, Outbox
from poller.outbox.values import Discard, Revive, Rewind, Skip
from poller.testing.sink_contract import make_records
from poller.testing.virtual_time import VirtualClock, VirtualTimeLoop

SINKS = ("a", "b", "c")
RETAIN_S = 1000.0
TEND_S = 60.0  # at the latest after this, what may go is gone
ALL = {"max_records": 10_000, "max_bytes": 1 << 30}


@dataclass
class Model:
    """What an outbox must know."""

    records: list[Record] = field(default_factory=list)  # all ever accepted, by position
    accepted_s: list[float] = field(default_factory=list)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    cursors: dict[str, int] = field(default_factory=dict)
    configured: frozenset[str] = frozenset()
    dead: dict[str, list[str]] = field(default_factory=dict)  # ids, in the order they were put aside
    again: dict[str, set[str]] = field(default_factory=dict)  # those of them to be delivered again
    dropped: dict[str, int] = field(default_factory=dict)
    egress: dict[str, bytes] = field(default_factory=dict)

    def position(self, record_id: str) -> int:
        return next(place for place, record in enumerate(self.records, 1) if record.id == record_id)

    def deletable(self, at_s: float) -> int:
        """How many of the oldest records may be gone at a time."""
        everywhere = min(self.cursors.values(), default=len(self.records))
        count = 0
        while count < everywhere and self.accepted_s[count] < at_s - RETAIN_S:
            count += 1
        return count


class OutboxMachine(RuleBasedStateMachine):
    """Runs the real outbox on a virtual loop; a crash is a copy of its files while it is in use."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock()
        self.model = Model()
        self.generation = 0
        self.outbox: Outbox

    @property
    def path(self) -> Path:
        return self.directory / str(self.generation) / "outbox.db"

    def run(self, awaitable: Any) -> Any:
        async def wait() -> Any:
            return await awaitable

        return self.loop.run_until_complete(wait())

    def open(self) -> None:
        self.outbox = self.run(Outbox.open(self.path, self.clock, metrics=Metrics(), retain_s=RETAIN_S))

    @initialize(is_used=st.booleans())
    def begin(self, is_used: bool) -> None:
        self.open()
        if is_used:  # or else it takes many steps until there is something to move and to bury
            self.register({"a", "b"}, "oldest")
            self.accept(5, "alice", together=False)
            self.acknowledge_as("a", share=0.8, refused=2)

    @rule(count=st.integers(1, 5), account=st.sampled_from(["alice", "bob"]), together=st.booleans())
    def accept(self, count: int, account: str, together: bool) -> None:
        first = len(self.model.records) + 1
        records = make_records(count, account=account, first=first)
        baseline = Baseline(account, sequence=first + count - 1)

        async def at_once() -> None:
            await asyncio.gather(*(self.outbox.accept(baseline, [record]) for record in records))

        self.run(at_once() if together else self.outbox.accept(baseline, records))
        self.model.records += records
        self.model.accepted_s += [self.loop.time()] * count
        self.model.baselines[account] = baseline

    @rule(sinks=st.sets(st.sampled_from(SINKS)), start=st.sampled_from(["oldest", "now"]))
    def register(self, sinks: set[str], start: Any) -> None:
        first = self.outbox.stats().first_position
        self.run(self.outbox.register(dict.fromkeys(sinks, start)))
        for sink in sinks - self.model.cursors.keys():
            self.model.cursors[sink] = first - 1 if start == "oldest" else len(self.model.records)
            self.model.dropped[sink] = 0
        self.model.configured = frozenset(sinks)

    @precondition(lambda self: self.model.configured)
    @rule(data=st.data(), share=st.sampled_from([0.0, 0.3, 0.7, 1.0]), refused=st.integers(0, 3))
    def acknowledge(self, data: st.DataObject, share: float, refused: int) -> None:
        self.acknowledge_as(data.draw(st.sampled_from(sorted(self.model.configured))), share, refused)

    def acknowledge_as(self, sink: str, share: float, refused: int) -> None:
        position = round(share * len(self.model.records))
        cursor = self.model.cursors[sink]
        waiting = [
            replace(record, position=place)
            for place, record in enumerate(self.model.records, 1)
            if cursor < place <= position
        ]
        dead = [DeadLetter(record, "no") for record in waiting[:refused]]
        self.run(self.outbox.acknowledge(sink, position, dead))
        self.model.cursors[sink] = max(cursor, position)
        self.model.dead.setdefault(sink, []).extend(letter.record.id for letter in dead)

    @precondition(lambda self: self.model.configured)
    @rule(data=st.data(), share=st.sampled_from([0.0, 0.2, 0.5, 0.9]))
    def rewind(self, data: st.DataObject, share: float) -> None:
        sink = data.draw(st.sampled_from(sorted(self.model.configured)))
        first = self.outbox.stats().first_position
        before = self.model.cursors[sink]
        after = max(round(share * len(self.model.records)), first - 1)
        rewound = self.run(self.outbox.write(Rewind(sink, after)))
        if after >= before:
            assert (rewound.records, rewound.letters) == (0, 0)
            return
        back = [i for i in self.model.dead.get(sink, []) if self.model.position(i) > after]
        assert (rewound.before, rewound.after) == (before, after)
        assert (rewound.records, rewound.letters) == (before - after, len(back))
        self.model.cursors[sink] = after
        self.model.dead[sink] = [i for i in self.model.dead.get(sink, []) if i not in back]
        self.model.again.setdefault(sink, set()).difference_update(back)

    @precondition(lambda self: self.model.configured)
    @rule(data=st.data())
    def skip(self, data: st.DataObject) -> None:
        sink = data.draw(st.sampled_from(sorted(self.model.configured)))
        waiting = len(self.model.records) - self.model.cursors[sink]
        assert self.run(self.outbox.write(Skip(sink))) == waiting
        self.model.cursors[sink] = len(self.model.records)
        self.model.dropped[sink] += waiting

    @precondition(lambda self: any(self.model.dead.values()))
    @rule(data=st.data(), what=st.sampled_from(["revive", "discard", "taken", "refused"]))
    def letters(self, data: st.DataObject, what: str) -> None:
        sink = data.draw(st.sampled_from(sorted(sink for sink, dead in self.model.dead.items() if dead)))
        chosen = data.draw(st.lists(st.sampled_from(self.model.dead[sink]), unique=True, min_size=1))
        again = self.model.again.setdefault(sink, set())
        match what:
            case "revive":
                assert self.run(self.outbox.write(Revive(sink, tuple(chosen)))) == len(set(chosen) - again)
                again.update(chosen)
            case "discard":
                assert self.run(self.outbox.write(Discard(sink, tuple(chosen)))) == len(chosen)
                self.model.dropped[sink] += len(chosen)
            case "taken":
                self.run(self.outbox.settle(sink, chosen, []))
            case "refused":
                letters = [
                    each for each in self.run(self.outbox.dead_letters(sink)) if each.record.id in chosen
                ]
                self.run(self.outbox.settle(sink, [], [replace(each, reason="still no") for each in letters]))
                again.difference_update(chosen)
        if what in {"discard", "taken"}:
            self.model.dead[sink] = [i for i in self.model.dead[sink] if i not in chosen]
            again.difference_update(chosen)

    @rule(name=st.sampled_from(["default", "nat-b"]), state=st.binary(max_size=20))
    def put_egress(self, name: str, state: bytes) -> None:
        self.run(self.outbox.put_egress(name, state))
        self.model.egress[name] = state

    @rule(seconds=st.sampled_from([0.1, 10.0, 500.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule()
    def restart(self) -> None:
        self.run(self.outbox.close())
        self.open()
        self.run(self.outbox.register(dict.fromkeys(self.model.configured, "oldest")))

    @rule()
    def crash(self) -> None:
        crashed, old = self.outbox, self.path
        self.generation += 1
        self.path.parent.mkdir()
        for file in old.parent.iterdir():
            shutil.copy(file, self.path.parent)
        self.run(crashed.close())
        self.open()
        self.run(self.outbox.register(dict.fromkeys(self.model.configured, "oldest")))

    @invariant()
    def knows_what_the_model_knows(self) -> None:
        if not hasattr(self, "outbox"):
            return
        assert self.outbox.last_position == len(self.model.records)
        assert self.run(self.outbox.baselines()) == self.model.baselines
        assert self.run(self.outbox.egress()) == self.model.egress
        assert self.outbox.stats().backlogs.keys() == self.model.configured
        for sink in self.model.configured:
            cursor = self.model.cursors[sink]
            assert self.outbox.cursor(sink) == cursor
            waiting = [
                replace(record, position=place)
                for place, record in enumerate(self.model.records[cursor:], cursor + 1)
            ]
            assert self.outbox.backlog(sink) == len(waiting)
            if waiting:
                assert self.run(self.outbox.next_batch(sink, **ALL)) == waiting
            dead = self.run(self.outbox.dead_letters(sink))
            assert [letter.record.id for letter in dead] == self.model.dead.get(sink, [])
            flagged = {letter.record.id for letter in dead if letter.again}
            assert flagged == self.model.again.get(sink, set())
            assert self.outbox.again(sink) == len(flagged)
            assert self.outbox.stats().dropped[sink] == self.model.dropped[sink]

    @invariant()
    def deletes_what_may_go_and_nothing_else(self) -> None:
        if not hasattr(self, "outbox"):
            return
        deleted = self.outbox.stats().first_position - 1
        assert deleted <= self.model.deletable(self.loop.time())

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            if not self.model.configured and self.model.cursors:
                self.run(self.outbox.register(dict.fromkeys(self.model.cursors, "oldest")))
            for sink in self.model.cursors:
                self.run(self.outbox.register(dict.fromkeys(self.model.cursors, "oldest")))
                if self.outbox.backlog(sink):  # only what was read since the last jump can be acknowledged
                    self.run(self.outbox.next_batch(sink, **ALL))
                    self.run(self.outbox.acknowledge(sink, len(self.model.records)))
            self.run(asyncio.sleep(RETAIN_S + TEND_S))
            assert self.outbox.stats().first_position == len(self.model.records) + 1
            self.run(self.outbox.close())
        self.loop.close()
        shutil.rmtree(self.directory)


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
