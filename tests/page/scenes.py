"""Fleets that look like a desk's, for pictures and for looking at the page by hand."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from poller.overview import AccountSummary, BalanceSeen, PollSeen
from tests.page.made_up import MadeUpFleet, detail, egress, sink, summary, text_of

DESKS = ("mm", "otc", "arb", "treasury", "clients")
REGIONS = ("eu", "apac", "us")
HELD = (
    ("BTC", 1.0),
    ("ETH", 0.031),
    ("USDT", 0.0000097),
    ("BNB", 0.0071),
    ("SOL", 0.0018),
    ("USDC", 0.0000097),
    ("XRP", 0.0000231),
)
ERRORS = (
    ("no_response", "no answer within 10 s"),
    ("bad_answer", "the body ended after 4096 of 18211 bytes"),
    ("unavailable", "the exchange answered 502"),
)


def plain(value: float, digits: int = 8) -> str:
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") or "0"


def line(chance: random.Random, value: float) -> tuple[float, ...]:
    course = [value]
    for _ in range(39):
        course.append(course[-1] * (1 + chance.gauss(0, 0.006)))
    return tuple(reversed(course))


def account(index: int, chance: random.Random) -> AccountSummary:
    desk = DESKS[index % len(DESKS)]
    value = math.exp(chance.gauss(1.2, 1.6))
    interval_s = 10.0 if desk == "treasury" else 60.0
    return summary(
        f"{desk}-{index:04}",
        age_s=chance.uniform(0.2, interval_s * 1.02),
        interval_s=interval_s,
        egress=("default", "nat-b", "frankfurt")[index % 3],
        labels={"desk": desk, "region": REGIONS[index % 7 % 3]},
        lateness_s=abs(chance.gauss(0, 0.02)),
        next_due_s=chance.uniform(0, interval_s),
        total_btc=plain(value),
        line=line(chance, value),
        sequence=chance.randint(1, 9000),
        assets=chance.randint(2, 40),
        stretch=1.0,
    )


def desk(size: int = 5000) -> MadeUpFleet:
    """A fleet of that many, most of it well."""
    chance = random.Random(7)
    accounts = [account(index, chance) for index in range(size)]
    now = datetime.now(UTC)
    since = text_of(now - timedelta(minutes=7))
    for index, (kind, text) in zip(
        (17, 401, 402, 1203, 2950), (ERRORS[0], ERRORS[0], ERRORS[0], ERRORS[2], ERRORS[1]), strict=True
    ):
        accounts[index % size] = replace(
            accounts[index % size],
            state="stale",
            since=since,
            reason="no good answer for 3 intervals",
            good_at=text_of(now - timedelta(seconds=chance.uniform(190, 460))),
            error=text,
            error_kind=kind,
            failures=chance.randint(3, 8),
        )
    for index in (88, 2301):
        accounts[index % size] = replace(
            accounts[index % size],
            state="quarantined",
            since=since,
            reason="the key was refused three times",
            good_at=text_of(now - timedelta(hours=5)),
            error="-2015: invalid API key, IP or permissions",
            error_kind="access_denied",
            failures=6,
        )
    accounts[733 % size] = replace(
        accounts[733 % size],
        state="keyless",
        since=since,
        reason="the vault cannot be reached",
        good_at=None,
        total_btc=None,
        line=(),
        lateness_s=None,
    )
    for index in (60, 1501, 3200, 3999):
        accounts[index % size] = replace(
            accounts[index % size],
            error=ERRORS[1][1],
            error_kind=ERRORS[1][0],
            failures=1,
            good_at=text_of(now - timedelta(seconds=chance.uniform(64, 110))),
        )
    fleet = MadeUpFleet(accounts)
    fleet.egress_now = (
        egress("default", accounts=1667, seed=3),
        egress("nat-b", accounts=1667, seed=5, stretch={"0": 1.0, "1": 1.35}),
        egress("frankfurt", accounts=1666, seed=9),
    )
    fleet.sinks_now = (
        sink("history", "sqlite", rate_per_s=21.3),
        sink("bus", "nats", rate_per_s=21.2, backlog=3, lag_s=0.2),
        sink("desk", "redis", rate_per_s=4.1, dead_letters=2),
        sink(
            "risk",
            "webhook",
            rate_per_s=0.0,
            backlog=18_204,
            lag_s=742.0,
            failing_s=741.0,
            is_open=True,
            error="503 from https://risk.example/hooks",
        ),
    )
    happen(fleet, chance, accounts)
    portrait(fleet, accounts[3].account)
    return fleet


def happen(fleet: MadeUpFleet, chance: random.Random, accounts: list[AccountSummary]) -> None:
    for _ in range(60):
        one = chance.choice(accounts)
        asset, price = chance.choice(HELD)
        before = chance.uniform(0.1, 4) / price**0.7
        changes = [(asset, "free", plain(before, 6), plain(before * chance.uniform(0.9, 1.1), 6))]
        if chance.random() < 0.3:
            changes.append(("USDT", "locked", "0", plain(chance.uniform(10, 90_000), 2)))
        fleet.happen(one.account, *changes)
    fleet.happen(accounts[17 % len(accounts)].account, state="stale", text="no good answer for 3 intervals")
    fleet.happen(accounts[42 % len(accounts)].account, ("BTC", "free", "1.2", "1.5"))


def portrait(fleet: MadeUpFleet, name: str) -> None:
    """One account with everything that its page shows."""
    chance = random.Random(11)
    now = datetime.now(UTC)
    [one] = [each for each in fleet.accounts() if each.account == name]
    balances = []
    for asset, price in (*HELD, ("DOGE", 0.0000016), ("ADA", 0.0000061), ("LTC", 0.00089), ("AVAX", 0.00021)):
        worth = math.exp(chance.gauss(-0.4, 1.2))
        free, locked = worth / price, (worth / price * 0.2 if chance.random() < 0.4 else 0.0)
        balances.append(
            BalanceSeen(
                asset,
                plain(free),
                plain(locked),
                "0",
                "0",
                "0",
                plain(free + locked),
                plain(worth * (1.2 if locked else 1)),
            )
        )
    polls: list[PollSeen] = []
    for index in range(20):
        is_bad = index == 6
        at = text_of(now - timedelta(seconds=3 + index * one.interval_s))
        polls.append(
            PollSeen(at, "no_response", "no answer within 10 s", 0.01, None, 812)
            if is_bad
            else PollSeen(
                at, "ok", "", abs(chance.gauss(0, 0.01)), chance.uniform(60, 140), 814 if index < 4 else 812
            )
        )
    fleet.change(name, sequence=814, assets=len(balances), good_at=text_of(now - timedelta(seconds=3)))
    fleet.details[name] = replace(
        detail(one),
        balances=tuple(sorted(balances, key=lambda each: each.asset)),
        polls=tuple(polls),
        why=(
            f"It was last polled 3 s ago and answered well; it is polled every {one.interval_s:.0f} s.",
            "No pause is in force on its egress address.",
            "The sink risk has not got its last record yet: it is 18204 records behind.",
        ),
    )
    value, amount, points = float(one.total_btc or 1), 2.0, []
    at_h = 0.0
    while at_h < 24 * 30:
        points.append((at_h, value, amount))
        at_h += chance.expovariate(1 / 1.7)
        value *= 1 + chance.gauss(0, 0.012)
        if chance.random() < 0.2:
            amount = max(0.1, amount + chance.gauss(0, 0.3))
    fleet.history = {
        name: [
            course_point(now - timedelta(hours=hours), worth, held, 814 - index)
            for index, (hours, worth, held) in reversed(list(enumerate(points)))
        ]
    }


def course_point(at: datetime, worth: float, held: float, sequence: int) -> dict[str, Any]:
    return {"at": text_of(at), "total_btc": plain(worth), "sequence": max(1, sequence), "BTC": plain(held)}
