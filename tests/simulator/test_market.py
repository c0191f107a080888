from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.simulator.catalogue import CATALOGUE, PRICE_HOLDS_US, price, worth
from poller.simulator.market import EMPTY_EVERY, Balances, Market
from poller.simulator.moves import INTERNAL, KINDS, Holding, make_move, opening
from tests.simulator.fixtures import START_US

S = 1_000_000
NAMES = [f"account-{number}" for number in range(25)]


def make_market(seed: int = 1, moves_per_s: float = 10.0, start_us: int = START_US) -> Market:
    return Market(NAMES, seed=seed, moves_per_s=moves_per_s, start_us=start_us)


def states(market: Market) -> list[tuple[str, Balances]]:
    return [(entry.cause, entry.balances) for name in NAMES for entry in market.history(name)]


def totals(balances: Balances) -> dict[str, int]:
    return {code: holding.total for code, holding in balances if holding.total}


def test_the_same_seed_gives_the_same_states_after_the_same_time_on_another_day() -> None:
    one, other = make_market(), make_market(start_us=START_US + 987_654_321_012)
    one.advance(START_US + 60 * S)
    other.advance(START_US + 987_654_321_012 + 60 * S)
    assert states(one) == states(other)
    assert one.moves > 400


def test_another_seed_gives_another_market() -> None:
    one, other = make_market(seed=1), make_market(seed=2)
    assert states(one) != states(other)


@given(st.lists(st.integers(min_value=0, max_value=5 * S), max_size=30))
def test_the_books_do_not_depend_on_who_asked_when(pauses_us: list[int]) -> None:
    asked, other = make_market(), make_market()
    now_us = START_US
    for pause_us in pauses_us:
        now_us += pause_us
        asked.advance(now_us)
    other.advance(now_us)
    assert [asked.history(name) for name in NAMES] == [other.history(name) for name in NAMES]


@given(st.integers(min_value=0, max_value=2**32))
def test_no_amount_is_ever_negative_and_only_positive_rows_are_listed(seed: int) -> None:
    market = make_market(seed)
    market.advance(START_US + 30 * S)
    for name in NAMES:
        for entry in market.history(name):
            for code, holding in entry.balances:
                amounts = (holding.free, holding.locked, holding.freeze, holding.withdrawing, holding.ipoable)
                assert min(amounts) >= 0
                assert max(amounts) > 0
                assert holding.ipoable <= holding.free
                assert code in CATALOGUE


def test_times_in_the_books_ascend_and_every_move_is_one_entry_that_changes_something() -> None:
    market = make_market()
    market.advance(START_US + 120 * S)
    entries = 0
    for name in NAMES:
        history = market.history(name)
        assert history[0].time_us == START_US
        for before, after in pairwise(history):
            assert before.time_us < after.time_us <= START_US + 120 * S
            assert before.balances != after.balances
            entries += 1
    assert entries == market.moves


def test_moves_within_an_account_leave_every_total_as_it_was() -> None:
    market = make_market(moves_per_s=100.0)
    market.advance(START_US + 60 * S)
    seen: Counter[str] = Counter()
    for name in NAMES:
        history = market.history(name)
        for before, after in pairwise(history):
            seen[after.cause] += 1
            assert (totals(before.balances) == totals(after.balances)) == (after.cause in INTERNAL)
    assert seen.keys() == KINDS.keys()


def test_assets_appear_and_vanish_and_some_accounts_lose_everything() -> None:
    market = make_market(moves_per_s=100.0)
    market.advance(START_US + 60 * S)
    pairs = [
        ({code for code, _ in before.balances}, {code for code, _ in after.balances})
        for name in NAMES
        for before, after in pairwise(market.history(name))
    ]
    assert any(after - before for before, after in pairs)
    assert any(before - after for before, after in pairs)
    assert any(before and not after for before, after in pairs)


def test_every_twentieth_account_is_empty_and_stays_so() -> None:
    market = make_market()
    market.advance(START_US + 60 * S)
    assert [len(market.history(name)) for name in NAMES if not market.history(name)[0].balances] == [1]
    assert market.balances(NAMES[EMPTY_EVERY - 1]) == ()


def test_rows_are_sorted_by_asset() -> None:
    market = make_market()
    market.advance(START_US + 10 * S)
    for name in NAMES:
        codes = [code for code, _ in market.balances(name)]
        assert codes == sorted(codes)


def test_a_frozen_market_stands_still_and_goes_on_where_it_stopped() -> None:
    frozen, other = make_market(), make_market()
    frozen.freeze(START_US + 10 * S)
    frozen.freeze(START_US + 11 * S)  # once more changes nothing
    moves = frozen.moves
    frozen.advance(START_US + 70 * S)
    assert frozen.is_frozen
    assert frozen.moves == moves > 0
    frozen.thaw(START_US + 70 * S)
    frozen.advance(START_US + 80 * S)
    other.advance(START_US + 20 * S)
    assert states(frozen) == states(other)
    later = [
        entry.time_us for name in NAMES for entry in frozen.history(name) if entry.time_us > START_US + 10 * S
    ]
    assert min(later) > START_US + 70 * S


def test_a_step_of_the_clock_shifts_what_lies_ahead_and_not_the_past() -> None:
    market, other = make_market(), make_market()
    market.advance(START_US + 10 * S)
    past = {name: list(market.history(name)) for name in NAMES}
    market.step_clock(-3600 * S)
    market.advance(START_US + 20 * S - 3600 * S)
    other.advance(START_US + 20 * S)
    assert states(market) == states(other)
    assert all(list(market.history(name))[: len(past[name])] == past[name] for name in NAMES)


def test_a_step_of_the_clock_while_frozen_shifts_what_lies_ahead_as_well() -> None:
    market, other = make_market(), make_market()
    market.freeze(START_US + 10 * S)
    market.step_clock(-3600 * S)
    market.thaw(START_US + 15 * S - 3600 * S)
    market.advance(START_US + 25 * S - 3600 * S)
    other.advance(START_US + 20 * S)
    assert states(market) == states(other)


def test_a_market_without_moves_never_moves() -> None:
    market = make_market(moves_per_s=0)
    market.advance(START_US + 10**15)
    assert market.moves == 0


def test_an_empty_account_can_only_receive() -> None:
    for seed in range(50):
        name, touched = make_move({}, Random(seed))
        assert name == "deposit"
        assert all(holding.free > 0 for holding in touched.values())


def test_amounts_go_from_dust_to_more_digits_than_a_float_holds() -> None:
    amounts = [
        holding.free for seed in range(200) for holding in opening(Random(seed)).values() if holding.free > 0
    ]
    assert min(amounts) < 10**5
    assert max(amounts) > 10**19


def test_a_trade_is_worth_what_it_cost_less_the_fee() -> None:
    for seed in range(500):
        name, touched = make_move({"BTC": Holding(free=10**12)}, Random(seed))
        if name == "trade":
            [bought] = touched.keys() - {"BTC"}
            paid = (10**12 - touched["BTC"].free) * CATALOGUE["BTC"].price
            got = touched[bought].free * CATALOGUE[bought].price
            assert got <= paid * 999 // 1000 or touched[bought].free == 1
            return
    pytest.fail("no seed made a trade")


@given(st.sampled_from(list(CATALOGUE)), st.integers(min_value=0, max_value=10**18))
def test_prices_wander_by_three_per_cent_at_most_and_hold_for_ten_seconds(code: str, now_us: int) -> None:
    usual = CATALOGUE[code].price
    assert abs(price(code, now_us) - usual) * 100 <= usual * 3
    assert price(code, now_us) == price(code, now_us // PRICE_HOLDS_US * PRICE_HOLDS_US)


def test_a_bitcoin_is_worth_a_bitcoin() -> None:
    assert worth("BTC", 123_456_789, START_US) == 123_456_789


def test_the_catalogue_holds_codes_that_break_clients() -> None:
    codes = list(CATALOGUE)
    assert any(code.startswith("LD") for code in codes)
    assert any(code.isdigit() for code in codes)
    assert any(not code.isascii() for code in codes)
    assert all(asset.code == code for code, asset in CATALOGUE.items())
