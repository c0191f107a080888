"""A whole daemon against the simulated exchange on virtual time: everything real but the wire and the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from poller.acceptance import Acceptance
from poller.budget import WeightBudget, WeightWindow
from poller.errors import NoResponse, PollError, StaleConnection
from poller.exchange.client import ExchangeClient
from poller.exchange.request import USER_ASSETS, Request
from poller.exchange.response import Response
from poller.exchange.server_time import ServerTime
from poller.exchange.signing import Credentials, hmac_signer
from poller.metrics import Metrics
from poller.model import Account, Baseline, Kind, Record, Snapshot, State
from poller.outcomes import Outcomes
from poller.polling import WEIGHT, Dispatcher
from poller.schedule import Schedule
from poller.secrets import Secret
from poller.simulator import Exchange, SimulatorSettings
from poller.simulator.exchange import Request as Arrival
from poller.simulator.exchange import rows
from poller.simulator.faults import Answer, Ending
from poller.testing.books import Books, Version, holdings
from poller.testing.virtual_time import VirtualClock
from poller.timekeeping import TimeKeeper

EGRESS = "default"
ADDRESS = "192.0.2.1"
TIMEOUT_S = 15.0
SHARE = 0.9
HEARTBEAT_S = 6 * 3600.0  # rare: most of a day's records are to be changes


@dataclass(frozen=True, slots=True)
class Served:
    """One poll that reached the exchange. ``at_s`` is the time the exchange saw pass, ``at_us`` its clock."""

    sent_s: float
    at_s: float
    at_us: int
    account: str
    status: int


@dataclass(frozen=True, slots=True)
class Told:
    """An answer that demanded silence, once it was in the client's hands. Seconds that really passed."""

    at_s: float
    until_s: float
    status: int


@dataclass(slots=True)
class Journal:
    """What went over the wire, whatever process sent it."""

    served: list[Served] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)  # every request, the clock's among them
    told: list[Told] = field(default_factory=list)

    def digest(self) -> str:
        """Return a fingerprint of every poll: when, whose, and how it was answered."""
        trace = blake2b(digest_size=16)
        for one in self.served:
            trace.update(f"{one.sent_s!r} {one.at_us} {one.account} {one.status}\n".encode())
        return trace.hexdigest()

    def heaviest(self, window_s: float) -> int:
        """Return the most own weight that any stretch of a window's length holds, wherever it begins."""
        worst = first = 0
        for last, one in enumerate(self.served):
            while self.served[first].at_s <= one.at_s - window_s:
                first += 1
            worst = max(worst, last - first + 1)
        return worst * WEIGHT

    def heaviest_minute(self, window_s: float) -> int:
        """Return the most own weight in one window of the exchange's own clock."""
        counts: dict[int, int] = {}
        for one in self.served:
            number = one.at_us // round(window_s * 1e6)
            counts[number] = counts.get(number, 0) + WEIGHT
        return max(counts.values(), default=0)

    def into_silence(self) -> list[tuple[float, Told]]:
        """Return what was sent after an answer had demanded silence, and before its end."""
        found = []
        ends = sorted(self.told, key=lambda told: told.at_s)
        for told in ends:
            found += [(at_s, told) for at_s in self.sent_s if told.at_s < at_s < told.until_s]
        return found


def demanded_s(answer: Answer, now_us: int) -> float:
    """Return how long an answer demands silence at least; read from it apart from the code under test."""
    named = answer.headers.get("Retry-After", "")
    named_s = float(named) if named.isdecimal() else 0.0
    if answer.status == 418:
        _, _, until = answer.body.decode(errors="replace").partition("banned until ")
        digits = until.partition(".")[0]
        return max(named_s, int(digits) / 1000 - now_us / 1e6 if digits.isdecimal() else 0.0)
    if answer.status == 429:
        return named_s or 60.0
    return 300.0 if answer.status == 403 else 0.0


class Wire:
    """A transport that leads to the simulated exchange; what was sent arrives, whether or not we live to see it."""

    def __init__(self, exchange: Exchange, clock: VirtualClock, journal: Journal) -> None:
        self._exchange = exchange
        self._clock = clock
        self._journal = journal

    async def send(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        sent_s = self._clock.monotonic_s()
        self._journal.sent_s.append(self._clock.uptime_s())
        there_s, back_s = self._exchange.latency_s()
        arrived: asyncio.Future[Answer] = loop.create_future()

        def arrive() -> None:
            answer = self._arrive(request, sent_s)
            if not arrived.done():  # a killed process waits for nothing
                arrived.set_result(answer)

        loop.call_later(there_s, arrive)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await arrived
                await self._back(answer, back_s)
        except TimeoutError:
            raise NoResponse("timed out", cause="timeout") from None
        return self._response(answer, sent_s)

    async def close(self) -> None:
        pass

    def _arrive(self, request: Request, sent_s: float) -> Answer:
        target = f"{request.path}?{request.query}" if request.query else request.path
        api_key = request.headers.get("X-MBX-APIKEY")
        answer = self._exchange.handle(Arrival(ADDRESS, request.method, target, api_key))
        if request.path == USER_ASSETS.path:
            account = self._exchange._by_key[api_key or ""].name
            served = Served(sent_s, self._clock.uptime_s(), self._exchange.now_us(), account, answer.status)
            self._journal.served.append(served)
        return answer

    async def _back(self, answer: Answer, back_s: float) -> None:
        await asyncio.sleep(back_s + answer.delay_s)
        match answer.ending:
            case Ending.WHOLE:
                return
            case Ending.RESET:
                raise StaleConnection("reset before any answer")
            case Ending.STALL | Ending.STALL_WITHIN:
                await asyncio.sleep(answer.stall_s)
        raise NoResponse("the answer broke off", cause="reset")

    def _response(self, answer: Answer, sent_s: float) -> Response:
        if "Content-Encoding" in answer.headers:
            raise NoResponse("unpacks to more than is read", cause="too_large")
        now_s = self._clock.uptime_s()
        if (silence_s := demanded_s(answer, self._exchange.now_us())) > 0:
            self._journal.told.append(Told(now_s, now_s + silence_s, answer.status))
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(answer.status, headers, answer.body, sent_s, self._clock.monotonic_s())


class Disk:
    """What outlives a process."""

    def __init__(self) -> None:
        self.state: bytes | None = None
        self.baselines: dict[str, Baseline] = {}
        self.records: list[tuple[float, Record]] = []
        self._clock: VirtualClock | None = None

    def mount(self, clock: VirtualClock) -> None:
        self._clock = clock

    async def save(self, state: bytes) -> None:
        await asyncio.sleep(0)
        self.state = state

    async def accept(self, baseline: Baseline, records: Sequence[Record]) -> None:
        await asyncio.sleep(0)
        assert self._clock is not None
        self.baselines[baseline.account] = baseline
        self.records += [(self._clock.uptime_s(), record) for record in records]

    is_full = False

    async def wait_for_room(self) -> None:
        pass

    def snapshots(self) -> list[Record]:
        return [record for _, record in self.records if record.kind is Kind.SNAPSHOT]


class Daemon:
    """One process: built from what is on the disk, gone when it is killed."""

    def __init__(self, world: World, clock: VirtualClock) -> None:
        self.world = world
        metrics = Metrics()
        settings = world.settings
        server_time = ServerTime(clock)
        world.disk.mount(clock)
        window = WeightWindow(limit=settings.weight_limit, share=SHARE, window_s=settings.window_s)
        self.budget = WeightBudget(
            EGRESS, window, clock, world.disk.save, metrics=metrics, in_flight_s=TIMEOUT_S
        )
        self.budget.restore(world.disk.state)
        client = ExchangeClient(
            {EGRESS: Wire(world.exchange, clock, world.journal)},
            world.credentials,
            server_time,
            clock,
            recv_window_ms=10_000,
            metrics=metrics,
        )
        acceptance = Acceptance(world.disk, clock, metrics=metrics, heartbeat_s=HEARTBEAT_S, entropy=bytes)
        acceptance.restore(world.disk.baselines)
        self.outcomes = Outcomes(
            EGRESS,
            world.accounts,
            self.budget,
            acceptance,
            exchange_ns=server_time.now_ns,
            clock=clock,
            metrics=metrics,
        )

        async def measure() -> None:
            await client.synchronise(EGRESS, permit=self.budget.resumed)

        timekeeper = TimeKeeper(measure, self.outcomes.blame, clock)
        now_s = clock.monotonic_s()
        schedule = Schedule(now_s=now_s, utc_s=clock.utc_ns() / 1e9)
        for account in world.accounts:
            schedule.add(account, now_s)
        self._dispatcher = Dispatcher(
            EGRESS,
            schedule,
            self.budget,
            client,
            self.outcomes,
            timekeeper,
            room=world.disk,
            clock=clock,
            metrics=metrics,
            observer=self._observe,
        )
        self._tasks = [
            asyncio.create_task(timekeeper.run(), name="clock"),
            asyncio.create_task(self._dispatcher.run(), name="polls"),
        ]

    def _observe(self, account: Account, outcome: Snapshot | PollError, _lateness_s: float) -> None:
        if isinstance(outcome, Snapshot):
            self.world.good_s[account.name] = self.world.clock.uptime_s()

    async def kill(self) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


class World:
    """An exchange, its accounts, a disk, and the process that runs now.

    Attributes:
        clock: of the machine; steps and suspensions are set on it.
        good_s: of each account, when its last good answer came; seconds that really passed.
        skewed_s: when the exchange's clock was set; likewise.
    """

    def __init__(self, settings: SimulatorSettings, accounts: Sequence[Account]) -> None:
        self.settings = settings
        self.clock = VirtualClock()
        # The exchange's hardware is not ours: it survives our reboots.
        self.exchange = Exchange(settings, self.clock)
        self.accounts = accounts
        self.credentials = {
            account.name: Credentials(Secret(account.api_key), hmac_signer(Secret(account.secret)))
            for account in self.exchange.accounts
        }
        self.journal = Journal()
        self.disk = Disk()
        self.good_s: dict[str, float] = {}
        self.skewed_s: list[float] = []
        self.boots = 1
        self._machine = self.clock
        self.daemon = Daemon(self, self._machine)

    @property
    def allowed(self) -> int:
        return int(self.settings.weight_limit * SHARE)

    async def restart(self, *, reboot: bool = False) -> None:
        """Kill the process without a warning and start it again."""
        await self.daemon.kill()
        if reboot:
            self.boots += 1
            machine = VirtualClock(boot=f"boot-{self.boots}")
            machine.suspended_s, machine.wall_step_s = self.clock.suspended_s, self._machine.wall_step_s
            self._machine = machine
        self.daemon = Daemon(self, self._machine)

    def step_wall(self, seconds: float) -> None:
        """Set the machine's clock."""
        self._machine.wall_step_s += seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep, and the world go on."""
        for clock in {id(clock): clock for clock in (self.clock, self._machine)}.values():
            clock.suspended_s += seconds

    def skew(self, skew_ms: float) -> None:
        """Set the exchange's clock."""
        self.skewed_s.append(self.clock.uptime_s())
        self.exchange.set_skew_ms(skew_ms)

    def crowd(self, requests: int) -> None:
        """Let somebody on our address ask far too often, of another endpoint, until all of it is banned."""
        for _ in range(requests):
            answer = self.exchange.handle(Arrival(ADDRESS, "GET", "/sapi/v1/system/status"))
            if answer.status == 418:
                return
        raise AssertionError("nobody was banned")

    def books(self) -> Books:
        """Return every version of every account."""
        return {
            account.name: [
                Version(entry.time_us, holdings(rows(entry.balances)))
                for entry in self.exchange.books(account.name)
            ]
            for account in self.exchange.accounts
        }

    def states(self) -> dict[State, int]:
        return self.daemon.outcomes.states()
