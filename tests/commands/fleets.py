"""A fleet to look at: fixed documents, handed out as the daemon does and served over a real socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from poller.control import Serving, Verb, fleet_verbs, socket_path
from poller.overview import (
    AccountDetail,
    AccountSummary,
    AmountChange,
    BalanceSeen,
    Check,
    ConfigurationSeen,
    Discovery,
    EgressSeen,
    Happening,
    OutboxSeen,
    PollSeen,
    SinkSeen,
    Status,
    WeightSeen,
)

AT = "2026-01-01T12:00:00.000000Z"


def summary(account: str = "treasury", **changed: object) -> AccountSummary:
    """Return an account that is well, but for what is changed."""
    well = AccountSummary(
        account=account,
        state="ok",
        since="2026-01-01T08:00:00.000000Z",
        reason="",
        interval_s=10.0,
        stretch=1.0,
        priority=0,
        egress="default",
        labels={"desk": "mm"},
        good_at="2026-01-01T11:59:56.000000Z",
        lateness_s=0.02,
        next_due_s=6.0,
        total_btc="12.5",
        line=[12.0, 12.25, 12.5],
        sequence=42,
        assets=3,
        error="",
        error_kind="",
        failures=0,
    )
    return replace(well, **changed)  # type: ignore[arg-type]  # each test gives what fits


def egress(name: str = "default", **changed: object) -> EgressSeen:
    """Return an address that is well, but for what is changed."""
    well = EgressSeen(
        egress=name,
        limit=12_000,
        allowed=10_800,
        capacity=9_600,
        own=5_400,
        foreign=1_200,
        reported=6_600,
        window_s=60.0,
        in_flight=3,
        accounts=4,
        pause_s=0.0,
        pause_until=None,
        pause_cause="",
        stretch={"0": 1.0},
        seconds=[WeightSeen(5_400, 1_200, 6_600, False)],
    )
    return replace(well, **changed)  # type: ignore[arg-type]  # each test gives what fits


def sink(name: str = "history", **changed: object) -> SinkSeen:
    """Return a sink that is well, but for what is changed."""
    well = SinkSeen(
        sink=name,
        kind="sqlite",
        backlog=0,
        lag_s=0.0,
        rate_per_s=4.5,
        delivered=1_234,
        dead_letters=0,
        dropped=0,
        failing_s=0.0,
        is_open=False,
        error="",
    )
    return replace(well, **changed)  # type: ignore[arg-type]  # each test gives what fits


class FixedOverview:
    """An ``Overview`` of what it is given. What is put later gets the next number, as in the daemon."""

    def __init__(
        self,
        accounts: Sequence[AccountSummary],
        egress: Sequence[EgressSeen] = (),
        sinks: Sequence[SinkSeen] = (),
        *,
        ready: Sequence[Check] = (Check("outbox", ok=True, text="writable"),),
        configuration: ConfigurationSeen | None = None,
        discoveries: Sequence[Discovery] = (),
    ) -> None:
        self._accounts: dict[str, tuple[int, AccountSummary]] = {}
        self._number = 0
        self._egress, self._sinks = list(egress), list(sinks)
        self._ready = list(ready)
        self._configuration = configuration or ConfigurationSeen(
            "accounts.yaml", "2026-01-01T08:00:00.000000Z", [], [], None
        )
        self._discoveries = list(discoveries)
        self._happenings: list[Happening] = []
        self.details: dict[str, AccountDetail] = {}
        for account in accounts:
            self.put(account)

    def put(self, account: AccountSummary) -> None:
        """Say something new about an account."""
        self._number += 1
        self._accounts[account.account] = (self._number, account)

    def remove(self, name: str) -> None:
        """Take an account out of the configuration."""
        del self._accounts[name]

    def happen(self, happening: Happening) -> None:
        """Let something happen."""
        self._happenings.append(replace(happening, number=len(self._happenings) + 1))

    def status(self) -> Status:
        states: dict[str, int] = {}
        for _, account in self._accounts.values():
            states[account.state] = states.get(account.state, 0) + 1
        return Status(
            version="0.1.0",
            at=AT,
            started_at="2026-01-01T08:00:00.000000Z",
            accounts=len(self._accounts),
            states=states,
            overdue=1,
            total_btc="12.5",
            unvalued=1,
            polls_per_s=3.5,
            clock_offset_s=0.004,
            outbox=OutboxSeen(5_000, 3 * 1024**2, 1024**3, 0.0, False),
            configuration=self._configuration,
            ready=self._ready,
            discoveries=self._discoveries,
        )

    def at(self) -> str:
        return AT

    def changed(self, *, after: int = 0) -> tuple[int, Sequence[str]]:
        return self._number, [name for name, (number, _) in self._accounts.items() if number > after]

    def summaries(self, names: Sequence[str]) -> Sequence[AccountSummary]:
        return [self._accounts[name][1] for name in names if name in self._accounts]

    def names(self) -> Sequence[str]:
        return list(self._accounts)

    def account(self, name: str) -> AccountDetail | None:
        if name in self.details:
            return self.details[name]
        return None if name not in self._accounts else detail(self._accounts[name][1])

    def egress(self) -> Sequence[EgressSeen]:
        return self._egress

    def sinks(self) -> Sequence[SinkSeen]:
        return self._sinks

    def happenings(self, *, after: int = 0) -> Sequence[Happening]:
        return [happening for happening in self._happenings if happening.number > after][-500:]


def detail(account: AccountSummary) -> AccountDetail:
    """Return all there is about an account."""
    return AccountDetail(
        account,
        [BalanceSeen("BTC", "12", "0.5", "0", "0", "0", "12.5", "12.5")],
        [PollSeen("2026-01-01T11:59:56.000000Z", "ok", "", 0.02, 48.5, account.sequence)],
        ["It was last polled 4 s ago and answered well.", "It is due again in 6 s."],
    )


def desk() -> FixedOverview:
    """Return the fleet that docs/commands.md shows: not all of it is well."""
    fleet = FixedOverview(
        [
            summary(),
            summary(
                "sub-001",
                state="quarantined",
                since="2026-01-01T11:20:00.000000Z",
                reason="its key is refused: -2015 Invalid API-key, IP, or permissions for action.",
                good_at="2026-01-01T11:18:00.000000Z",
                error="-2015 Invalid API-key, IP, or permissions for action.",
                error_kind="access_denied",
                failures=5,
                next_due_s=1500.0,
                total_btc="0.75",
                egress="nat-b",
            ),
            summary(
                "sub-002",
                state="stale",
                since="2026-01-01T11:59:10.000000Z",
                reason="no good answer for 50 s",
                good_at="2026-01-01T11:58:40.000000Z",
                error="no answer within 15 s",
                error_kind="no_response",
                failures=4,
                next_due_s=-2.0,
                egress="nat-b",
                labels={"desk": "otc"},
            ),
            summary("sub-003", good_at="2026-01-01T11:59:35.000000Z", next_due_s=-5.0, total_btc=None),
        ],
        [
            egress(accounts=2),
            egress(
                "nat-b",
                own=900,
                foreign=0,
                reported=None,
                capacity=10_800,
                accounts=2,
                pause_s=42.0,
                pause_until="2026-01-01T12:00:42.000000Z",
                pause_cause="rate_limited",
            ),
        ],
        [
            sink(),
            sink(
                "bus",
                kind="nats",
                backlog=312,
                lag_s=95.0,
                rate_per_s=0.0,
                delivered=900,
                dead_letters=2,
                failing_s=95.0,
                is_open=True,
                error="nats.example:4222: connection refused",
            ),
        ],
        ready=[
            Check("outbox", ok=True, text="writable"),
            Check("polls", ok=False, text="1 of 2 egress addresses pauses: nat-b"),
        ],
    )
    fleet.details["sub-001"] = replace(
        detail(*fleet.summaries(["sub-001"])),
        polls=[
            PollSeen(
                "2026-01-01T11:25:00.000000Z",
                "access_denied",
                "-2015 Invalid API-key, IP, or permissions for action.",
                0.01,
                None,
                42,
            ),
            PollSeen("2026-01-01T11:18:00.000000Z", "ok", "", 0.02, 48.5, 42),
        ],
        why=[
            "Its key was refused 5 times in a row, so it is quarantined and asked again in 25 min.",
            "Every request from nat-b pauses for 42 s more: rate_limited.",
            "bus has not got its last record yet.",
        ],
    )
    fleet.happen(
        Happening(
            0, "2026-01-01T11:59:10.000000Z", "status", "sub-002", 42, "stale", "no good answer for 50 s", []
        )
    )
    fleet.happen(
        Happening(
            0,
            "2026-01-01T11:59:56.000000Z",
            "snapshot",
            "treasury",
            42,
            "changed",
            "",
            [AmountChange("BTC", "free", "11.75", "12")],
        )
    )
    return fleet


def write_configuration(directory: Path, text: str | None = None) -> Path:
    """Write the configuration of that fleet, without any key, and return its path."""
    path = directory / "accounts.yaml"
    path.write_text(text or CONFIGURATION)
    return path


CONFIGURATION = """\
egress:
  nat-b: {local_address: 10.0.0.2}
defaults: {interval: 10s}
accounts:
  treasury: {api_key: env:TREASURY_KEY, secret: env:TREASURY_SECRET, labels: {desk: mm}}
  sub-001: {api_key: env:SUB_001_KEY, secret: env:SUB_001_SECRET, egress: nat-b, labels: {desk: mm}}
  sub-002: {api_key: env:SUB_002_KEY, secret: env:SUB_002_SECRET, egress: nat-b, labels: {desk: otc}}
  sub-003: {api_key: env:SUB_003_KEY, secret: env:SUB_003_SECRET, labels: {desk: mm}}
sinks:
  history: {kind: sqlite, path: data/history.db}
"""


@contextmanager
def serving(directory: Path, verbs: Mapping[str, Verb] | FixedOverview) -> Iterator[None]:
    """Answer at the socket of a configuration's outbox, in a thread of its own, while the context lasts."""
    table = fleet_verbs(verbs) if isinstance(verbs, FixedOverview) else verbs
    (directory / "data").mkdir(exist_ok=True)
    ready = threading.Event()
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        end = asyncio.Event()
        async with Serving(socket_path(directory / "data" / "outbox.db"), table):
            ends.append((asyncio.get_running_loop(), end))
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="door")
    thread.start()
    assert ready.wait(30)
    try:
        yield
    finally:
        loop, end = ends[0]
        loop.call_soon_threadsafe(end.set)
        thread.join()
