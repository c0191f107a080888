"""An overview that is made of what a test puts into it, and keeps the promises of ``poller.overview``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

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

AT = "2026-01-01T00:00:00.000000Z"
_MOST_HAPPENINGS = 500


class InMemoryOverview:
    """Hands out what was put in.

    Attributes:
        asked: how often each method was called.
    """

    def __init__(self, accounts: Sequence[AccountSummary] = ()) -> None:
        self.asked: dict[str, int] = {}
        self._number = 0
        self._accounts: dict[str, tuple[int, AccountSummary]] = {}
        self._balances: dict[str, Sequence[BalanceSeen]] = {}
        self._egress: list[EgressSeen] = [egress_seen()]
        self._sinks: list[SinkSeen] = [sink_seen()]
        self._happenings: list[Happening] = []
        self._status = status_seen()
        for account in accounts:
            self.put(account)

    # ---- what tests do to it

    def put(self, account: AccountSummary) -> None:
        """Add an account, or change one."""
        self._number += 1
        self._accounts[account.account] = (self._number, account)

    def change(self, name: str, **values: Any) -> AccountSummary:
        """Change parts of an account; return it as it is now."""
        changed = replace(self._accounts[name][1], **values)
        self.put(changed)
        return changed

    def remove(self, name: str) -> None:
        """Take an account away."""
        del self._accounts[name]

    def hold(self, name: str, balances: Sequence[BalanceSeen]) -> None:
        """Say what an account holds."""
        self._balances[name] = balances

    def set_status(self, **values: Any) -> None:
        """Change parts of the status."""
        self._status = replace(self._status, **values)

    def set_egress(self, *egress: EgressSeen) -> None:
        """Replace the egress addresses."""
        self._egress = list(egress)

    def set_sinks(self, *sinks: SinkSeen) -> None:
        """Replace the sinks."""
        self._sinks = list(sinks)

    def happen(self, account: str, **values: Any) -> Happening:
        """Let something happen; return it with its number."""
        number = self._happenings[-1].number + 1 if self._happenings else 1
        change = AmountChange("BTC", "free", "1", "2")
        happening = Happening(number, AT, "snapshot", account, number, "changed", "", [change])
        happening = replace(happening, **values)
        self._happenings.append(happening)
        return happening

    def accounts(self) -> Sequence[AccountSummary]:
        """Return every account as it was put."""
        return [account for _, account in self._accounts.values()]

    # ---- what it hands out

    def status(self) -> Status:
        """Return the status."""
        self._count("status")
        return replace(self._status, accounts=len(self._accounts))

    def at(self) -> str:
        """Return the time."""
        self._count("at")
        return self._status.at

    def changed(self, *, after: int = 0) -> tuple[int, Sequence[str]]:
        """Return the names of what changed."""
        self._count("changed")
        return self._number, [name for name, (number, _) in self._accounts.items() if number > after]

    def summaries(self, names: Sequence[str]) -> Sequence[AccountSummary]:
        """Return those of the named accounts that there are."""
        self._count("summaries")
        return [self._accounts[name][1] for name in names if name in self._accounts]

    def names(self) -> Sequence[str]:
        """Return the names."""
        self._count("names")
        return list(self._accounts)

    def account(self, name: str) -> AccountDetail | None:
        """Return one account."""
        self._count("account")
        if name not in self._accounts:
            return None
        poll = PollSeen(AT, "ok", "", 0.25, 31.5, 7)
        return AccountDetail(
            self._accounts[name][1], self._balances.get(name, ()), [poll], ["polled a moment ago"]
        )

    def egress(self) -> Sequence[EgressSeen]:
        """Return the egress addresses."""
        self._count("egress")
        return list(self._egress)

    def sinks(self) -> Sequence[SinkSeen]:
        """Return the sinks."""
        self._count("sinks")
        return list(self._sinks)

    def happenings(self, *, after: int = 0) -> Sequence[Happening]:
        """Return what happened."""
        self._count("happenings")
        return [seen for seen in self._happenings if seen.number > after][-_MOST_HAPPENINGS:]

    def _count(self, method: str) -> None:
        self.asked[method] = self.asked.get(method, 0) + 1


def account_summary(name: str, *, labels: Mapping[str, str] | None = None, **values: Any) -> AccountSummary:
    """Return an account that is well, but for the values given."""
    summary = AccountSummary(
        account=name,
        state="ok",
        since=None,
        reason="",
        interval_s=60.0,
        stretch=1.0,
        priority=0,
        egress="default",
        labels=labels or {},
        good_at=AT,
        lateness_s=0.25,
        next_due_s=30.0,
        total_btc="1.5",
        line=[1.0, 1.5],
        sequence=7,
        assets=2,
        error="",
        error_kind="",
        failures=0,
    )
    return replace(summary, **values)


def balance_seen(asset: str, total: str) -> BalanceSeen:
    """Return a balance of which everything is free."""
    return BalanceSeen(asset, total, "0", "0", "0", "0", total, None)


def egress_seen(**values: Any) -> EgressSeen:
    """Return an address with a budget that is half used, but for the values given."""
    seen = EgressSeen(
        egress="default",
        limit=12_000,
        allowed=10_800,
        capacity=10_800,
        own=5_400,
        foreign=0,
        reported=5_400,
        window_s=60.0,
        in_flight=3,
        accounts=2,
        pause_s=0.0,
        pause_until=None,
        pause_cause="",
        stretch={"0": 1.0},
        seconds=[WeightSeen(5_400, 0, 5_400, is_paused=False), WeightSeen(0, 0, None, is_paused=True)],
    )
    return replace(seen, **values)


def sink_seen(**values: Any) -> SinkSeen:
    """Return a sink that works, but for the values given."""
    seen = SinkSeen(
        sink="history",
        kind="sqlite",
        backlog=0,
        lag_s=0.0,
        rate_per_s=1.5,
        delivered=42,
        dead_letters=0,
        dropped=0,
        failing_s=0.0,
        is_open=False,
        error="",
    )
    return replace(seen, **values)


def status_seen(**values: Any) -> Status:
    """Return the status of a daemon that is well, but for the values given."""
    seen = Status(
        version="0.1.0",
        at=AT,
        started_at=AT,
        accounts=0,
        states={"ok": 0},
        overdue=0,
        total_btc="3.0",
        unvalued=0,
        polls_per_s=2.5,
        clock_offset_s=0.001,
        outbox=OutboxSeen(42, 4096, 2**30, 0.0, is_full=False),
        configuration=ConfigurationSeen("accounts.yaml", AT, (), (), None),
        ready=[Check("polls", ok=True, text="all accounts are fresh")],
        discoveries=[Discovery("main", AT, "", 2, (), (), ())],
    )
    return replace(seen, **values)
