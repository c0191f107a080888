"""The overview of a running daemon: reads its parts and writes the documents of ``poller.overview``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from poller import __version__
from poller.clock import NS_PER_MS, NS_PER_S, Clock, rfc3339
from poller.config import Config, Secrets
from poller.egress import Egress
from poller.explaining import explain
from poller.model import EXACT, Balance, Baseline, plain
from poller.observations import Seen
from poller.overview import (
    AccountDetail,
    AccountState,
    AccountSummary,
    BalanceSeen,
    ConfigurationSeen,
    Discovery,
    EgressSeen,
    Happening,
    OutboxSeen,
    SinkSeen,
    Status,
)
from poller.parts import Parts
from poller.readiness import readiness
from poller.records import total_btc
from poller.sampling import Sampling

OVERDUE_INTERVALS = 2.0
_NOTHING = Seen()


class Report:
    """What ``poller.overview.Overview`` asks for, of one daemon.

    Args:
        parts: of the daemon.
        config: what it runs; see ``adopt``.
        secrets: of it; only what is missing of them is looked at.
        sampling: the last two minutes.
        discoveries: what master accounts say, at any time.
    """

    def __init__(
        self,
        parts: Parts,
        config: Config,
        secrets: Secrets,
        sampling: Sampling,
        clock: Clock,
        *,
        discoveries: Callable[[], Sequence[Discovery]] = tuple,
    ) -> None:
        self._parts = parts
        self._config = config
        self._unavailable = secrets.unavailable
        self._keyless = _keyless(config, secrets)
        self._sampling = sampling
        self._clock = clock
        self._discoveries = discoveries
        self._started_ns = clock.utc_ns()
        self._changed: Sequence[str] = ()
        self._loaded_ns = self._started_ns
        self._missing_ns = dict.fromkeys(secrets.unavailable, self._started_ns)
        self._problems: Sequence[str] = ()
        self._refused_ns: int | None = None

    def adopt(self, config: Config, secrets: Secrets, changed: Sequence[str]) -> None:
        """Speak of another configuration, now that it is in force."""
        self._config = config
        self._problems, self._refused_ns = (), None
        self._loaded_ns = self._clock.utc_ns()
        self.complete(secrets, changed)

    def complete(self, secrets: Secrets, changed: Sequence[str]) -> None:
        """Speak of secrets that could not be had before; what was refused still is."""
        now_ns = self._clock.utc_ns()
        self._unavailable = secrets.unavailable
        self._missing_ns = {owner: self._missing_ns.get(owner, now_ns) for owner in secrets.unavailable}
        self._keyless = _keyless(self._config, secrets)
        if changed:
            self._changed = changed

    def refuse(self, problems: Sequence[str]) -> None:
        """Speak of a configuration that is not in force, for it has these problems."""
        self._problems, self._refused_ns = problems, self._clock.utc_ns()

    # The whole ------------------------------------------------------------------------------------

    def at(self) -> str:
        """Return what time it is by the daemon's clock."""
        return rfc3339(self._clock.utc_ns())

    def status(self) -> Status:
        """Return the whole at a glance."""
        states: Counter[str] = Counter({"ok": 0, "stale": 0, "quarantined": 0, "keyless": 0})
        overdue = fresh = unvalued = 0
        total = Decimal(0)
        seen_of = self._parts.observations.of
        for name, state, late in self._standings():
            states[state] += 1
            seen = seen_of(name)
            if seen is not None and seen.total_btc is not None:
                total = EXACT.add(total, seen.total_btc)
            else:
                unvalued += 1
            overdue += late
            fresh += not late and seen is not None and seen.good_ns is not None and state == "ok"
        sinks, outbox = self.sinks(), self._outbox()
        accounts = states.total()
        return Status(
            version=__version__,
            at=self.at(),
            started_at=rfc3339(self._started_ns),
            accounts=accounts,
            states=dict(states),
            overdue=overdue,
            total_btc=plain(total),
            unvalued=unvalued,
            polls_per_s=self._sampling.polls_per_s(),
            clock_offset_s=round((self._parts.server_time.now_ns() - self._clock.utc_ns()) / NS_PER_S, 4),
            outbox=outbox,
            configuration=self._configuration(),
            ready=readiness(
                fresh=fresh,
                pollable=accounts - states["quarantined"] - states["keyless"],
                accounts=accounts,
                pauses=self._pauses(),
                is_full=outbox.is_full,
                sinks=sinks,
            ),
            discoveries=tuple(self._discoveries()),
        )

    def _configuration(self) -> ConfigurationSeen:
        return ConfigurationSeen(
            path=str(self._config.path),
            loaded_at=rfc3339(self._loaded_ns),
            changed=self._changed,
            problems=self._problems,
            refused_at=None if self._refused_ns is None else rfc3339(self._refused_ns),
        )

    def _outbox(self) -> OutboxSeen:
        stats, ledger = self._parts.outbox.stats(), self._parts.outbox.ledger
        return OutboxSeen(
            records=ledger.behind(0),
            used_bytes=stats.used_bytes,
            max_bytes=stats.max_bytes,
            oldest_s=round(max(map(self._sampling.lag_s, self._config.sinks), default=0.0), 3),
            is_full=stats.is_full,
        )

    def _pauses(self) -> dict[str, tuple[str, float]]:
        found = {}
        for name, egress in self._parts.egress.items():
            if (left_s := egress.budget.pause_left_s()) > 0:
                found[name] = (egress.budget.status().pause_cause, left_s)
        return found

    # Accounts -------------------------------------------------------------------------------------

    def names(self) -> Sequence[str]:
        """Return the names of all accounts, in the configuration's order."""
        return list(self._config.accounts)

    def changed(self, *, after: int = 0) -> tuple[int, Sequence[str]]:
        """Return the number to ask with next, and the accounts about which something changed since that one."""
        observations = self._parts.observations
        return observations.number, observations.changed(after) if after else list(self._config.accounts)

    def summaries(self, names: Sequence[str]) -> Sequence[AccountSummary]:
        """Return those of the named accounts that there are, as they are now."""
        found = ((name, self._egress_of(name)) for name in names)
        return [self._summary(name, egress) for name, egress in found if egress is not None]

    def account(self, name: str) -> AccountDetail | None:
        """Return one account, whole; ``None`` if there is none of that name."""
        egress = self._egress_of(name)
        if egress is None:
            return None
        summary = self._summary(name, egress)
        seen = self._parts.observations.of(name)
        baseline = self._parts.acceptance.baseline(name)
        position = 0 if seen is None else seen.position
        good_ns = None if seen is None else seen.good_ns
        return AccountDetail(
            summary=summary,
            balances=[_balance(balance) for balance in baseline.balances or ()],
            polls=[] if seen is None else seen.polls(),
            why=explain(
                summary,
                self._seen_egress(egress),
                [
                    sink
                    for sink in self.sinks()
                    if sink.backlog and self._parts.outbox.cursor(sink.sink) < position
                ],
                good_age_s=None if good_ns is None else (self._clock.utc_ns() - good_ns) / NS_PER_S,
                is_polling=egress.dispatcher.is_polling(name),
                is_full=self._parts.outbox.is_full,
            ),
        )

    def _standings(self) -> Iterator[tuple[str, str, bool]]:
        """Yield every account, its state, and whether it is overdue; to ask for each would take far longer."""
        now_s = self._clock.monotonic_s()
        for egress in self._parts.egress.values():
            stretches: dict[int, float] = {}
            for account, state, good_s in egress.outcomes.standings():
                name, priority = account.name, account.priority
                if name not in egress.accounts:  # it is about to be removed
                    continue
                if priority not in stretches:
                    stretches[priority] = egress.outcomes.stretch(priority)
                allowed_s = OVERDUE_INTERVALS * account.interval_s * stretches[priority]
                yield name, "keyless" if name in self._keyless else state, now_s - good_s > allowed_s

    def _egress_of(self, name: str) -> Egress | None:
        account = self._config.accounts.get(name)
        egress = None if account is None else self._parts.egress.get(account.egress)
        return egress if egress is not None and name in egress.accounts else None

    def _state(self, name: str, egress: Egress) -> AccountState:
        if name in self._keyless:
            return "keyless"
        state: AccountState = egress.outcomes.state(name).value  # type: ignore[assignment]  # never removed
        return state

    def _summary(self, name: str, egress: Egress) -> AccountSummary:
        account = egress.accounts[name]
        seen = self._parts.observations.of(name) or _NOTHING
        baseline = self._parts.acceptance.baseline(name)
        state = self._state(name, egress)
        due_s = egress.schedule.due_s(name)
        value = self._value(seen, baseline)
        return AccountSummary(
            account=name,
            state=state,
            since=rfc3339(baseline.since_ns) if baseline.since_ns and state != "keyless" else None,
            reason="" if state == "ok" else self._keyless.get(name, seen.reason),
            interval_s=account.interval_s,
            stretch=round(egress.outcomes.stretch(account.priority), 3),
            priority=account.priority,
            egress=account.egress,
            labels=account.labels,
            good_at=None if seen.good_ns is None else rfc3339(seen.good_ns),
            lateness_s=seen.lateness_s,
            next_due_s=None if due_s is None else round(due_s - self._clock.monotonic_s(), 3),
            total_btc=None if value is None else plain(value),
            line=seen.line.points(),
            sequence=baseline.sequence,
            assets=len(baseline.balances or ()),
            error=seen.error,
            error_kind=seen.error_kind,
            failures=seen.failures,
        )

    def _value(self, seen: Seen, baseline: Baseline) -> Decimal | None:
        if seen.good_ns is not None:
            return seen.total_btc
        # Nothing was seen since the start: what was accepted before it is better than nothing.
        return None if baseline.balances is None else total_btc(baseline.balances)

    # What they go through -------------------------------------------------------------------------

    def egress(self) -> Sequence[EgressSeen]:
        """Return every egress address."""
        return [self._seen_egress(egress) for egress in self._parts.egress.values()]

    def _seen_egress(self, egress: Egress) -> EgressSeen:
        status = egress.budget.status()
        until_ns = self._clock.utc_ns() + round(status.pause_s * 1000) * NS_PER_MS
        priorities = {account.priority for account in egress.accounts.values()}
        return EgressSeen(
            egress=egress.name,
            limit=status.limit,
            allowed=status.allowed,
            capacity=status.capacity,
            own=status.own,
            foreign=status.foreign,
            reported=status.reported,
            window_s=self._config.budget.window_s,
            in_flight=status.in_flight,
            accounts=len(egress.accounts),
            pause_s=round(status.pause_s, 1),
            pause_until=rfc3339(until_ns) if status.pause_s > 0 else None,
            pause_cause=status.pause_cause,
            stretch={
                str(priority): round(egress.outcomes.stretch(priority), 3)
                for priority in sorted(priorities, reverse=True)
            },
            seconds=self._sampling.seconds(egress.name),
        )

    def sinks(self) -> Sequence[SinkSeen]:
        """Return every sink."""
        ledger = self._parts.outbox.ledger
        found = []
        for name, delivery in self._parts.deliveries.items():
            status = delivery.status()
            found.append(
                SinkSeen(
                    sink=name,
                    kind=self._config.sinks[name].kind if name in self._config.sinks else "",
                    backlog=status.backlog,
                    lag_s=round(self._sampling.lag_s(name), 3) if status.backlog else 0.0,
                    rate_per_s=self._sampling.delivered_per_s(name),
                    delivered=status.delivered,
                    dead_letters=ledger.letters.get(name, 0),
                    dropped=ledger.cursors[name].dropped,
                    failing_s=round(status.failing_s, 1),
                    is_open=status.is_open,
                    error=status.error,
                )
            )
        missing = self._config.sinks.keys() - self._parts.deliveries.keys()
        found += [self._unreachable_sink(name) for name in missing if name in ledger.cursors]
        order = {name: place for place, name in enumerate(self._config.sinks)}
        return sorted(found, key=lambda sink: order.get(sink.sink, -1))

    def _unreachable_sink(self, name: str) -> SinkSeen:
        """A sink whose secret cannot be had, so that nothing is delivered to it."""
        problem = self._unavailable.get(f"sinks.{name}")
        ledger, now_ns = self._parts.outbox.ledger, self._clock.utc_ns()
        return SinkSeen(
            sink=name,
            kind=self._config.sinks[name].kind,
            backlog=self._parts.outbox.backlog(name),
            lag_s=round(self._sampling.lag_s(name), 3),
            rate_per_s=0.0,
            delivered=0,
            dead_letters=ledger.letters.get(name, 0),
            dropped=ledger.cursors[name].dropped,
            failing_s=round((now_ns - self._missing_ns.get(f"sinks.{name}", now_ns)) / NS_PER_S, 1),
            is_open=False,
            error="its secret cannot be had now" if problem is None else problem.message,
        )

    def happenings(self, *, after: int = 0) -> Sequence[Happening]:
        """Return what happened after that number, oldest first; at most the last 500."""
        return self._parts.observations.happenings(after)


def _keyless(config: Config, secrets: Secrets) -> dict[str, str]:
    """Return the accounts whose key cannot be had, and why."""
    found = ((name, secrets.obstacle(account)) for name, account in config.accounts.items())
    return {name: problem.message for name, problem in found if problem is not None}


def _balance(balance: Balance) -> BalanceSeen:
    value = balance.btc_valuation
    return BalanceSeen(
        balance.asset,
        plain(balance.free),
        plain(balance.locked),
        plain(balance.freeze),
        plain(balance.withdrawing),
        plain(balance.ipoable),
        plain(balance.total),
        None if value is None else plain(value),
    )
