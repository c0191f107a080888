"""What can be asked about a fleet: over a real socket, from documents as the daemon has them."""

from __future__ import annotations

import sqlite3
from collections import deque
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from poller.clock import SystemClock
from poller.control import Refused, Serving, ask, balances_verbs, fleet_verbs, socket_path
from poller.metrics import Metrics
from poller.model import Balance, Baseline, State
from poller.outbox import Outbox
from poller.overview import Happening, Overview
from tests.commands.fleets import AT, FixedOverview, desk, detail, egress, sink, summary

pytestmark = pytest.mark.real_time


async def answered(path: Path, overview: Overview, verb: str, **arguments: Any) -> Any:
    socket = socket_path(path / "outbox.db")
    async with Serving(socket, fleet_verbs(overview)):
        return await ask(socket, verb, arguments)


async def test_status_has_the_whole_with_addresses_and_sinks(tmp_path: Path) -> None:
    fleet = FixedOverview([summary()], [egress()], [sink()])
    answer = await answered(tmp_path, fleet, "fleet.status")
    assert answer == {
        "status": asdict(fleet.status()),
        "egress": [asdict(egress())],
        "sinks": [asdict(sink())],
    }


async def test_accounts_are_those_that_changed_since(tmp_path: Path) -> None:
    fleet = FixedOverview([summary("a"), summary("b")])
    first = await answered(tmp_path, fleet, "fleet.accounts", after=0)
    assert first == {
        "number": 2,
        "at": AT,
        "names": ["a", "b"],
        "accounts": [asdict(summary("a")), asdict(summary("b"))],
    }
    fleet.put(summary("b", sequence=43))
    fleet.remove("a")
    then = await answered(tmp_path, fleet, "fleet.accounts", after=first["number"])
    assert (then["number"], then["names"]) == (3, ["b"])
    assert then["accounts"] == [asdict(summary("b", sequence=43))]


async def test_explain_has_an_account_whole(tmp_path: Path) -> None:
    answer = await answered(tmp_path, desk(), "fleet.explain", account="treasury")
    assert answer == asdict(detail(summary()))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tresury", "there is no account 'tresury'; did you mean 'treasury'? accounts: sub-001, sub-002"),
        ("zzz", "there is no account 'zzz'; accounts: sub-001"),
    ],
)
async def test_an_unknown_account_is_named_with_the_one_that_was_meant(
    tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(Refused, match="there is no account") as refused:
        await answered(tmp_path, desk(), "fleet.explain", account=name)
    assert str(refused.value).startswith(said)


async def test_happenings_are_those_after_a_number(tmp_path: Path) -> None:
    fleet = FixedOverview([summary()])
    for state in ("stale", "ok"):
        fleet.happen(Happening(0, AT, "status", "treasury", 42, state, "", []))
    assert [row["reason"] for row in await answered(tmp_path, fleet, "fleet.happenings")] == ["stale", "ok"]
    [last] = await answered(tmp_path, fleet, "fleet.happenings", after=1)
    assert (last["number"], last["reason"]) == (2, "ok")


@pytest.mark.parametrize("after", [-1, "1", True, None, 1.5])
async def test_a_number_that_is_none_is_refused(tmp_path: Path, after: object) -> None:
    for verb in ("fleet.accounts", "fleet.happenings"):
        with pytest.raises(Refused, match="the arguments do not fit the verb"):
            await answered(tmp_path, desk(), verb, after=after)


async def test_documents_may_be_made_of_any_mapping_and_sequence(tmp_path: Path) -> None:
    account = summary(labels=MappingProxyType({"desk": "mm"}), line=deque([1.0, 2.0]))
    answer = await answered(tmp_path, FixedOverview([account]), "fleet.accounts")
    assert answer["accounts"][0]["labels"] == {"desk": "mm"}
    assert answer["accounts"][0]["line"] == [1.0, 2.0]


async def test_balances_are_what_was_last_accepted_exactly(tmp_path: Path) -> None:
    long = Decimal("123456789012345678901234567890.000000000000000000000000000001")
    outbox = await Outbox.open(tmp_path / "outbox.db", SystemClock(), metrics=Metrics())
    since_ns = 1_767_225_600_000_000_000
    held = (Balance("BTC", long, btc_valuation=long), Balance("XYZ", Decimal("1.50"), Decimal("0.25")))
    await outbox.accept(Baseline("b", 3, held, None, State.STALE, since_ns), [])
    await outbox.accept(Baseline("a", 0, None), [])
    socket = socket_path(tmp_path / "outbox.db")
    async with Serving(socket, balances_verbs(outbox)):
        first, second = await ask(socket, "fleet.balances", {})
    await outbox.close()
    assert first == {"account": "a", "sequence": 0, "state": "ok", "since": None, "balances": []}
    text = "123456789012345678901234567890.000000000000000000000000000001"
    nothing = dict.fromkeys(("freeze", "withdrawing", "ipoable"), "0")
    assert second == {
        "account": "b",
        "sequence": 3,
        "state": "stale",
        "since": "2026-01-01T00:00:00.000000Z",
        "balances": [
            {"asset": "BTC", "free": text, "locked": "0", **nothing, "total": text, "btc_valuation": text},
            {
                "asset": "XYZ",
                "free": "1.5",
                "locked": "0.25",
                **nothing,
                "total": "1.75",
                "btc_valuation": None,
            },
        ],
    }


async def test_a_damaged_baseline_is_said(tmp_path: Path) -> None:
    outbox = await Outbox.open(tmp_path / "outbox.db", SystemClock(), metrics=Metrics())
    await outbox.accept(Baseline("a", 1, ()), [])
    await outbox.close()
    with sqlite3.connect(tmp_path / "outbox.db") as db:
        db.execute("UPDATE baselines SET baseline = x'00'")
    db.close()
    outbox = await Outbox.open(tmp_path / "outbox.db", SystemClock(), metrics=Metrics())
    [row] = await balances_verbs(outbox)["fleet.balances"]({})
    await outbox.close()
    assert row == {"account": "a", "sequence": 0, "state": "damaged", "since": None, "balances": []}
