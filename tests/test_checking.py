"""What keys may do: judged by the policy, asked within the budget, watched day by day."""

from __future__ import annotations

import asyncio
import logging

import pytest

from poller.budget import WeightBudget, WeightWindow
from poller.checking import (
    AT_ONCE,
    CHECK_EVERY_S,
    Finding,
    Judgement,
    KeyChecker,
    KeyPolicy,
    KeyWatch,
    Verdict,
    judge,
    refused_alike,
)
from poller.errors import AccessDenied, OutboxFull, PollError, RateLimited, Unavailable
from poller.exchange.client import Restrictions
from poller.metrics import Metrics
from poller.model import Account
from poller.testing.virtual_time import VirtualClock

KNOWN_PAST = b'{"version":1,"boot_id":"boot-1","blocks":[],"pause":null,"strikes":0}'
GOOD = Restrictions(reading=True, ip_restricted=True, beyond_reading=())
OPEN = Restrictions(reading=True, ip_restricted=False, beyond_reading=())
TRADES = Restrictions(reading=True, ip_restricted=True, beyond_reading=("enableMargin", "enableWithdrawals"))
BLIND = Restrictions(reading=False, ip_restricted=True, beyond_reading=())
REFUSED = AccessDenied("HTTP 400, code -2015", code=-2015, status=400)
FAILED = Unavailable("HTTP 502", status=502)

CAN_MORE = "the key can do more than read: enableMargin, enableWithdrawals"


@pytest.mark.parametrize(
    ("finding", "policy", "verdict", "reasons"),
    [
        (GOOD, "warn", Verdict.GOOD, ()),
        (GOOD, "require_read_only", Verdict.GOOD, ()),
        (OPEN, "warn", Verdict.WARNING, ("the key works from any address",)),
        (OPEN, "require_read_only", Verdict.WARNING, ("the key works from any address",)),
        (OPEN, "off", Verdict.GOOD, ()),
        (TRADES, "warn", Verdict.WARNING, (CAN_MORE,)),
        (TRADES, "require_read_only", Verdict.FORBIDDEN, (CAN_MORE,)),
        (TRADES, "off", Verdict.GOOD, ()),
        (BLIND, "warn", Verdict.REFUSED, ("reading is not enabled",)),
        (BLIND, "off", Verdict.REFUSED, ("reading is not enabled",)),
        (REFUSED, "off", Verdict.REFUSED, ("the key is refused: HTTP 400, code -2015",)),
        (FAILED, "require_read_only", Verdict.UNKNOWN, ("not known what the key may do: HTTP 502",)),
        (OutboxFull("no room"), "warn", Verdict.UNKNOWN, ("not known what the key may do: no room",)),
        (None, "require_read_only", Verdict.UNKNOWN, ("was not asked about in time",)),
        (
            Restrictions(reading=False, ip_restricted=False, beyond_reading=("enableMargin",)),
            "require_read_only",
            Verdict.FORBIDDEN,
            (
                "the key can do more than read: enableMargin",
                "reading is not enabled",
                "the key works from any address",
            ),
        ),
    ],
)
def test_a_finding_means_what_the_policy_makes_of_it(
    finding: Finding, policy: KeyPolicy, verdict: Verdict, reasons: tuple[str, ...]
) -> None:
    assert judge(finding, policy) == Judgement(verdict, reasons)


@pytest.mark.parametrize(
    ("refused", "good", "unknown", "alike"),
    [
        (4, 0, 0, False),
        (5, 0, 0, True),
        (5, 5, 0, True),
        (5, 6, 0, False),
        (5, 0, 100, True),
        (0, 9, 0, False),
    ],
)
def test_an_address_is_to_blame_when_most_of_its_answers_are_refusals(
    refused: int, good: int, unknown: int, alike: bool
) -> None:
    findings: list[Finding] = [REFUSED] * refused + [GOOD] * good + [FAILED] * unknown
    accounts = [Account(f"a{n}", 10.0, egress="nat-b") for n in range(len(findings))]
    accounts.append(Account("elsewhere", 10.0))
    found = {account.name: finding for account, finding in zip(accounts, [*findings, GOOD], strict=True)}
    assert refused_alike(accounts, found) == (["nat-b"] if alike else [])


class World:
    """One address, keys as told, and who may be polled."""

    def __init__(self, clock: VirtualClock, accounts: int = 3, *, limit: int = 12_000) -> None:
        self.clock = clock
        self.metrics = Metrics()
        self.accounts = [Account(f"a{n}", 10.0) for n in range(accounts)]
        self.keys: dict[str, Restrictions | PollError] = {}
        self.asked: list[tuple[float, str]] = []
        self.at_once = self.most_at_once = 0
        self.save_fails: OutboxFull | None = None
        self.budget = WeightBudget(
            "default", WeightWindow(limit=limit), clock, self._save, metrics=self.metrics
        )
        self.budget.restore(KNOWN_PAST)
        self.checker = KeyChecker(self.budget, self.ask, self.blame)
        self.allowed: set[str] = set()
        self.forbidden: dict[str, str] = {}
        self.forbid_fails: OutboxFull | None = None

    async def _save(self, _state: bytes) -> None:
        if self.save_fails is not None:
            raise self.save_fails

    async def ask(self, account: Account) -> Restrictions:
        self.asked.append((self.clock.monotonic_s(), account.name))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.1)
        self.at_once -= 1
        answer = self.keys.get(account.name, GOOD)
        if isinstance(answer, PollError):
            raise answer
        return answer

    async def blame(self, error: PollError) -> None:
        if isinstance(error, RateLimited):
            await self.budget.pause(error, exchange_ms=0.0)

    async def check(self) -> dict[str, Finding]:
        findings: dict[str, Finding] = {}

        async def found(account: Account, finding: Finding) -> None:
            findings[account.name] = finding

        await self.checker.check(self.accounts, found)
        return findings

    def watch(self, policy: KeyPolicy) -> KeyWatch:
        def allow(account: Account) -> None:
            self.allowed.add(account.name)
            self.forbidden.pop(account.name, None)

        async def forbid(account: Account, reason: str) -> None:
            self.allowed.discard(account.name)
            if self.forbid_fails is not None:
                raise self.forbid_fails
            self.forbidden[account.name] = reason

        return KeyWatch("default", self.accounts, self.checker, policy, allow=allow, forbid=forbid)


async def test_every_key_is_asked_about_once_for_a_weight_of_one(clock: VirtualClock) -> None:
    w = World(clock, 50)
    w.keys = {"a1": REFUSED, "a2": FAILED, "a3": TRADES}
    findings = await w.check()
    assert findings == {f"a{n}": GOOD for n in range(50)} | w.keys
    assert [name for _, name in w.asked] == [f"a{n}" for n in range(50)]
    assert w.budget.status().granted == 50
    assert w.budget.status().in_flight == 0
    assert w.most_at_once == AT_ONCE


async def test_keys_are_asked_about_no_faster_than_the_budget_allows(clock: VirtualClock) -> None:
    w = World(clock, 250, limit=100)
    await w.check()
    times = [at_s for at_s, _ in w.asked]
    assert max(sum(at <= other < at + 60 for other in times) for at in times) <= 100
    assert times[-1] > 85


async def test_a_limit_that_is_met_is_waited_out(clock: VirtualClock) -> None:
    w = World(clock, 30)
    w.keys = {"a0": RateLimited("HTTP 429", status=429, retry_after_s=45.0)}
    findings = await w.check()
    struck_s = w.asked[0][0] + 0.1
    assert [at_s for at_s, _ in w.asked if struck_s < at_s < struck_s + 45] == []
    assert len(findings) == 30


async def test_keys_that_no_weight_can_be_reserved_for_stay_unknown(clock: VirtualClock) -> None:
    w = World(clock)
    w.save_fails = OutboxFull("no space left on device")
    findings = await w.check()
    assert {judge(finding, "require_read_only").verdict for finding in findings.values()} == {Verdict.UNKNOWN}
    assert w.asked == []


async def watched(w: World, policy: KeyPolicy, days: float) -> None:
    watching = asyncio.create_task(w.watch(policy).run())
    await asyncio.sleep(days * CHECK_EVERY_S)
    watching.cancel()


async def test_keys_are_checked_at_the_start_and_once_a_day(clock: VirtualClock) -> None:
    w = World(clock)
    await watched(w, "warn", 2.5)
    assert [round(at_s / CHECK_EVERY_S, 3) for at_s, name in w.asked if name == "a0"] == [0.0, 1.0, 2.0]


async def test_nothing_is_asked_when_the_policy_is_off(clock: VirtualClock) -> None:
    w = World(clock)
    await asyncio.wait_for(w.watch("off").run(), timeout=1.0)
    assert w.asked == []


async def test_a_key_that_can_do_more_than_read_is_forbidden_and_the_others_are_let_in(
    clock: VirtualClock,
) -> None:
    w = World(clock)
    w.keys = {"a0": TRADES, "a1": FAILED}
    await watched(w, "require_read_only", 0.5)
    assert w.forbidden == {"a0": CAN_MORE}
    assert w.allowed == {"a1", "a2"}  # not to know is no refusal


async def test_a_key_that_is_found_to_do_more_later_is_forbidden_then_and_comes_back_when_it_cannot(
    clock: VirtualClock,
) -> None:
    w = World(clock)
    watching = asyncio.create_task(w.watch("require_read_only").run())
    await asyncio.sleep(10)
    assert w.allowed == {"a0", "a1", "a2"}
    w.keys = {"a0": TRADES}
    await asyncio.sleep(CHECK_EVERY_S)
    assert w.allowed == {"a1", "a2"}
    w.keys = {"a0": FAILED}
    await asyncio.sleep(CHECK_EVERY_S)
    assert w.allowed == {"a1", "a2"}  # nobody said that it has become harmless
    w.keys = {}
    await asyncio.sleep(CHECK_EVERY_S)
    assert w.allowed == {"a0", "a1", "a2"}
    watching.cancel()


async def test_an_account_is_forbidden_also_while_nobody_can_be_told(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    w = World(clock)
    w.keys = {"a0": TRADES}
    w.forbid_fails = OutboxFull("no space left on device")
    await watched(w, "require_read_only", 0.5)
    assert w.allowed == {"a1", "a2"}
    assert "states cannot be accepted" in caplog.messages


async def test_keys_that_can_do_more_are_told_in_one_line_and_again_only_if_they_are_others(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "poller.checking")
    w = World(clock, 20)
    w.keys = {f"a{n}": TRADES for n in range(8)}
    watching = asyncio.create_task(w.watch("warn").run())
    await asyncio.sleep(1.5 * CHECK_EVERY_S)
    [line] = [record.__dict__ for record in caplog.records if record.name == "poller.checking"]
    assert (line["message"], line["accounts"]) == ("keys can do more than read", 8)
    assert line["names"] == ["a0", "a1", "a2", "a3", "a4"]
    assert w.allowed == {account.name for account in w.accounts}
    w.keys["a9"] = TRADES
    await asyncio.sleep(CHECK_EVERY_S)
    assert [record.__dict__["accounts"] for record in caplog.records if record.name == "poller.checking"] == [
        8,
        9,
    ]
    watching.cancel()
