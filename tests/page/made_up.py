"""A made-up fleet that changes when a test says so: an ``Overview`` without a daemon behind it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import RLock
from typing import Any

from poller.overview import (
    AccountDetail,
    AccountState,
    AccountSummary,
    AmountChange,
    BalanceSeen,
    Check,
    ConfigurationSeen,
    EgressSeen,
    Happening,
    HistoryPoint,
    OutboxSeen,
    PollSeen,
    SinkSeen,
    Status,
    WeightSeen,
)

LIMIT, ALLOWED = 12_000, 10_800


def text_of(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def summary(
    name: str, *, age_s: float | None = 5.0, now: datetime | None = None, **fields: Any
) -> AccountSummary:
    """An account that is well, but for what is said otherwise."""
    good = None if age_s is None else text_of((now or datetime.now(UTC)) - timedelta(seconds=age_s))
    values: dict[str, Any] = {
        "account": name,
        "state": "ok",
        "since": None,
        "reason": "",
        "interval_s": 60.0,
        "stretch": 1.0,
        "priority": 0,
        "egress": "default",
        "labels": {},
        "good_at": good,
        "lateness_s": 0.004,
        "next_due_s": 31.0,
        "total_btc": "1.5",
        "line": (1.4, 1.5, 1.45, 1.5),
        "sequence": 3,
        "assets": 2,
        "error": "",
        "error_kind": "",
        "failures": 0,
    }
    return AccountSummary(**(values | fields))


def egress(name: str = "default", *, accounts: int = 50, seed: int = 1, **fields: Any) -> EgressSeen:
    """An address in quiet use."""
    chance = random.Random(seed)
    own, foreign, seconds = 7_200, 900, []
    for index in range(120):
        own = max(5_000, min(9_400, own + chance.randint(-160, 160)))
        foreign = max(200, min(1_500, foreign + chance.randint(-90, 90)))
        reported = None if index < 3 else own + foreign - chance.randint(20, 160)
        seconds.append(WeightSeen(own, foreign, reported, is_paused=False))
    last = seconds[-1]
    values: dict[str, Any] = {
        "egress": name,
        "limit": LIMIT,
        "allowed": ALLOWED,
        "capacity": ALLOWED - last.foreign,
        "own": last.own,
        "foreign": last.foreign,
        "reported": last.reported,
        "window_s": 60.0,
        "in_flight": 3,
        "accounts": accounts,
        "pause_s": 0.0,
        "pause_until": None,
        "pause_cause": "",
        "stretch": {"0": 1.0},
        "seconds": tuple(seconds),
    }
    return EgressSeen(**(values | fields))


def sink(name: str, kind: str, **fields: Any) -> SinkSeen:
    """A sink that keeps up."""
    values: dict[str, Any] = {
        "sink": name,
        "kind": kind,
        "backlog": 0,
        "lag_s": 0.0,
        "rate_per_s": 12.4,
        "delivered": 480_221,
        "dead_letters": 0,
        "dropped": 0,
        "failing_s": 0.0,
        "is_open": False,
        "error": "",
    }
    return SinkSeen(**(values | fields))


class MadeUpFleet:
    """What a test made up. Safe to change from one thread while a server reads it in another."""

    def __init__(self, accounts: Sequence[AccountSummary] = ()) -> None:
        self._lock = RLock()
        self._number = 0
        self._accounts: dict[str, tuple[int, AccountSummary]] = {}
        self._happenings: list[Happening] = []
        self.details: dict[str, AccountDetail] = {}
        self.history: dict[str, list[dict[str, Any]]] | None = {}
        self.started = datetime.now(UTC) - timedelta(days=3, hours=4, minutes=12)
        self.egress_now: tuple[EgressSeen, ...] = (egress(),)
        self.sinks_now: tuple[SinkSeen, ...] = (sink("history", "sqlite"), sink("bus", "nats"))
        self.status_fields: dict[str, Any] = {}
        self.put(*accounts)

    def put(self, *accounts: AccountSummary) -> None:
        """Add accounts, or say something new about them."""
        with self._lock:
            self._number += 1
            for account in accounts:
                self._accounts[account.account] = (self._number, account)

    def change(self, name: str, **fields: Any) -> None:
        """Change fields of one account."""
        with self._lock:
            self.put(replace(self._accounts[name][1], **fields))

    def remove(self, name: str) -> None:
        with self._lock:
            del self._accounts[name]

    def happen(
        self, account: str, *changes: tuple[str, str, str, str], state: str = "", text: str = ""
    ) -> None:
        """Let a change of balances, or of the state, happen now."""
        with self._lock:
            self._happenings.append(
                Happening(
                    number=len(self._happenings) + 1,
                    at=text_of(datetime.now(UTC)),
                    kind="status" if state else "snapshot",
                    account=account,
                    sequence=3,
                    reason=state or ("changed" if changes else "first"),
                    text=text,
                    changes=tuple(AmountChange(*change) for change in changes),
                )
            )

    def pause(self, name: str = "default", *, seconds: float, cause: str = "rate_limited") -> None:
        """Begin a pause of an address."""
        until = text_of(datetime.now(UTC) + timedelta(seconds=seconds))
        self.egress_now = tuple(
            replace(
                seen,
                pause_s=seconds,
                pause_until=until,
                pause_cause=cause,
                seconds=(*seen.seconds[:-18], *(replace(one, is_paused=True) for one in seen.seconds[-18:])),
            )
            if seen.egress == name
            else seen
            for seen in self.egress_now
        )

    def status(self) -> Status:
        now = datetime.now(UTC)
        with self._lock:
            accounts = [account for _, account in self._accounts.values()]
        states: dict[AccountState, int] = {"ok": 0, "stale": 0, "quarantined": 0, "keyless": 0}
        total, unvalued, overdue = Decimal(0), 0, 0
        for account in accounts:
            states[account.state] += 1
            unvalued += account.total_btc is None
            total += Decimal(account.total_btc or 0)
            if account.good_at is None:
                continue
            age_s = (now - datetime.fromisoformat(account.good_at)).total_seconds()
            overdue += age_s > 2 * account.interval_s
        values: dict[str, Any] = {
            "version": "0.1.0",
            "at": text_of(now),
            "started_at": text_of(self.started),
            "accounts": len(accounts),
            "states": states,
            "overdue": overdue,
            "total_btc": f"{total:f}",
            "unvalued": unvalued,
            "polls_per_s": 38.7,
            "clock_offset_s": -0.012,
            "outbox": OutboxSeen(1_204_331, 412_000_000, 1_073_741_824, 2.1, is_full=False),
            "configuration": ConfigurationSeen("accounts.yaml", text_of(self.started), (), (), None),
            "ready": (Check("outbox", ok=True, text="room"), Check("sinks", ok=True, text="open")),
            "discoveries": (),
        }
        return Status(**(values | self.status_fields))

    def accounts(self) -> Sequence[AccountSummary]:
        """Return every account as it was put."""
        with self._lock:
            return [account for _, account in self._accounts.values()]

    def at(self) -> str:
        return text_of(datetime.now(UTC))

    def changed(self, *, after: int = 0) -> tuple[int, Sequence[str]]:
        with self._lock:
            return self._number, [name for name, (number, _) in self._accounts.items() if number > after]

    def summaries(self, names: Sequence[str]) -> Sequence[AccountSummary]:
        with self._lock:
            return [self._accounts[name][1] for name in names if name in self._accounts]

    def names(self) -> Sequence[str]:
        with self._lock:
            return list(self._accounts)

    def account(self, name: str) -> AccountDetail | None:
        with self._lock:
            if name not in self._accounts:
                return None
            known = self.details.get(name) or detail(self._accounts[name][1])
            return replace(known, summary=self._accounts[name][1])

    def egress(self) -> Sequence[EgressSeen]:
        return self.egress_now

    def sinks(self) -> Sequence[SinkSeen]:
        return self.sinks_now

    def happenings(self, *, after: int = 0) -> Sequence[Happening]:
        with self._lock:
            return [happening for happening in self._happenings if happening.number > after][-500:]

    def course(self, name: str, asset: str | None, since_s: float) -> list[HistoryPoint] | None:
        """What the history keeps of an account; ``None`` if none is kept."""
        if self.history is None:
            return None
        begin = text_of(datetime.now(UTC) - timedelta(seconds=since_s))
        points = self.history.get(name, [])
        return [
            HistoryPoint(
                point["at"],
                None if asset is None else point.get(asset),
                point["total_btc"],
                point["sequence"],
            )
            for point in points
            if point["at"] >= begin
        ]


def detail(account: AccountSummary, balances: Mapping[str, str] | None = None) -> AccountDetail:
    """An account's page of data: a few balances, a few polls."""
    now = datetime.now(UTC)
    held = balances or {"BTC": "1.25", "USDT": "7300.125"}
    polls = [
        PollSeen(
            text_of(now - timedelta(seconds=5 + 60 * index)), "ok", "", 0.003, 84.0 + index, account.sequence
        )
        for index in range(8)
    ]
    return AccountDetail(
        summary=account,
        balances=tuple(
            BalanceSeen(asset, total, "0", "0", "0", "0", total, "1.25" if asset == "BTC" else None)
            for asset, total in sorted(held.items())
        ),
        polls=tuple(polls),
        why=("It was last polled 5 s ago and answered well.", "It is polled again in 31 s."),
    )
