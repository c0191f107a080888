from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from poller.simulator import KEY_KINDS, Exchange, Fault, FaultKind, KeyKind, SimulatorSettings
from poller.simulator.catalogue import worth
from poller.simulator.exchange import KEY_PATH, STATUS_PATH, TIME_PATH, Request, rows
from poller.simulator.faults import DEFAULT_PATH, JSON, WEIGHT_HEADER, Answer
from poller.simulator.moves import Holding
from poller.simulator.weights import Neighbour
from tests.simulator.fixtures import START_MS, START_US, HandClock, signature, signed

SETTINGS = SimulatorSettings(accounts=21, key_kinds=("hmac",), moves_per_s=0)
REFUSED_KEY = (400, -2015, "Invalid API-key, IP, or permissions for action.")
AHEAD = (400, -1021, "Timestamp for this request was 1000ms ahead of the server's time.")
OUTSIDE = (400, -1021, "Timestamp for this request is outside of the recvWindow.")
ADVICE = "Please use WebSocket Streams for live updates to avoid"
BAD_SIGNATURE = (400, -1022, "Signature for this request is not valid.")


class Desk:
    """An exchange on a clock turned by hand, and somebody who asks it."""

    def __init__(self, settings: SimulatorSettings = SETTINGS, **changes: Any) -> None:
        self.clock = HandClock()
        self.exchange = Exchange(replace(settings, **changes), self.clock)
        self.account = self.exchange.accounts[0]

    def ask(
        self,
        target: str,
        method: str = "POST",
        body: bytes = b"",
        address: str = "127.0.0.1",
        key: str | None = "",
    ) -> Answer:
        key = self.account.api_key if key == "" else key
        return self.exchange.handle(Request(address, method, target, key, body))

    def poll(self, parameters: str = f"timestamp={START_MS}", **how: Any) -> Answer:
        return self.ask(signed(self.account, parameters), **how)


def refusal(answer: Answer) -> tuple[int, int, str]:
    document = json.loads(answer.body)
    assert document.keys() == {"code", "msg"}
    return answer.status, document["code"], document["msg"]


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_rightly_signed_poll_gets_what_the_books_hold(kind: KeyKind) -> None:
    desk = Desk(key_kinds=(kind,))
    answer = desk.poll()
    assert (answer.status, answer.headers["Content-Type"]) == (200, JSON)
    assert json.loads(answer.body) == rows(desk.exchange.books("sim-0001")[-1].balances) != []


def test_a_row_has_seven_texts_in_the_documented_order() -> None:
    balances = (("BNB", Holding(88_747_061_626, 0, 1_052_000_000, 10_000_000, 0)),)
    assert json.dumps(rows(balances)) == (
        '[{"asset": "BNB", "free": "887.47061626", "locked": "0", "freeze": "10.52", "withdrawing": "0.1", '
        '"ipoable": "0", "btcValuation": "0"}]'
    )


def test_an_account_without_anything_gets_an_empty_list() -> None:
    desk = Desk()
    desk.account = desk.exchange.accounts[19]
    assert desk.poll().body == b"[]"


def test_one_asset_can_be_asked_for_and_one_that_is_not_held_is_no_error() -> None:
    desk = Desk()
    held = desk.exchange.books("sim-0001")[-1].balances
    code = next(code for code, _ in held if code.isascii())
    answer = desk.poll(f"asset={code}&timestamp={START_MS}")
    assert json.loads(answer.body) == [row for row in rows(held) if row["asset"] == code]
    assert desk.poll(f"asset=NOTHELD&timestamp={START_MS}").body == b"[]"


def test_a_code_that_is_no_ascii_is_asked_for_percent_encoded() -> None:
    desk = Desk()
    answer = desk.poll(f"asset=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9F&timestamp={START_MS}")
    assert answer.status == 200


def test_valuations_are_given_where_they_are_asked_for() -> None:
    desk = Desk()
    held = desk.exchange.books("sim-0001")[-1].balances
    answer = json.loads(desk.poll(f"needBtcValuation=true&timestamp={START_MS}").body)
    assert answer == rows(held, valued_us=START_US)
    valued = {row["asset"]: Fraction(row["btcValuation"]) * 10**8 for row in answer}
    assert valued == {code: worth(code, holding.total, START_US) for code, holding in held}
    assert {row["btcValuation"] for row in json.loads(desk.poll().body)} == {"0"}


def test_parameters_may_stand_in_the_body() -> None:
    desk = Desk()
    payload = f"timestamp={START_MS}"
    body = f"{payload}&signature={signature(desk.account, payload)}".encode()
    assert desk.ask(DEFAULT_PATH, body=body).status == 200


def test_query_and_body_are_signed_as_one_without_anything_between() -> None:
    desk = Desk()
    query, body = "needBtcValuation=true", f"timestamp={START_MS}"
    whole, divided = signature(desk.account, query + body), signature(desk.account, f"{query}&{body}")
    assert desk.ask(f"{DEFAULT_PATH}?{query}", body=f"{body}&signature={whole}".encode()).status == 200
    answer = desk.ask(f"{DEFAULT_PATH}?{query}", body=f"{body}&signature={divided}".encode())
    assert refusal(answer) == BAD_SIGNATURE


@pytest.mark.parametrize("key", [None, "short", "x" * 63, "x" * 65, "x" * 63 + "-", "é" * 64])
def test_a_key_of_the_wrong_form_is_refused_as_such(key: str | None) -> None:
    assert refusal(Desk().poll(key=key)) == (401, -2014, "API-key format invalid.")


def test_an_unknown_key_and_a_revoked_one_get_the_same_answer_until_it_is_restored() -> None:
    desk = Desk()
    assert refusal(desk.poll(key="x" * 64)) == REFUSED_KEY
    desk.exchange.revoked.add("sim-0001")
    assert refusal(desk.poll()) == REFUSED_KEY
    desk.exchange.revoked.clear()
    assert desk.poll().status == 200


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (f"timestamp={START_MS + 999}", None),
        (f"timestamp={START_MS + 1000}", AHEAD),
        (f"recvWindow=60000&timestamp={START_MS + 1000}", AHEAD),
        (f"timestamp={START_MS - 5000}", None),
        (f"timestamp={START_MS - 5001}", OUTSIDE),
        (f"recvWindow=60000&timestamp={START_MS - 60000}", None),
        (f"recvWindow=60000&timestamp={START_MS - 60001}", OUTSIDE),
        (f"recvWindow=60001&timestamp={START_MS}", (400, -1131, "recvWindow must be less than 60000.")),
        (f"timestamp={START_US}", AHEAD),  # microseconds
    ],
)
def test_the_timestamp_rule_holds_to_the_millisecond(
    parameters: str, expected: tuple[int, int, str] | None
) -> None:
    answer = Desk().poll(parameters)
    assert answer.status == 200 if expected is None else refusal(answer) == expected


@pytest.mark.parametrize("skew_ms", [-7_200_000, 7_200_000])
def test_the_timestamp_is_held_against_the_exchanges_clock_and_not_the_machines(skew_ms: int) -> None:
    desk = Desk(skew_ms=skew_ms)
    assert refusal(desk.poll())[1] == -1021
    assert desk.poll(f"timestamp={START_MS + skew_ms}").status == 200


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("recvWindow=5000", -1102),
        ("timestamp=", -1102),
        ("timestamp=now", -1100),
        ("timestamp=-1", -1100),
        ("timestamp=1.5", -1100),
        ("recvWindow=5e3&timestamp=1", -1100),
        (f"timestamp={START_MS}&type=SPOT", -1104),
        (f"timestamp={START_MS}&timestamp={START_MS}", -1101),
        (f"needBtcValuation=True&timestamp={START_MS}", -1100),
        (f"asset=B%20TC&timestamp={START_MS}", -1100),
    ],
)
def test_wrong_parameters_have_codes_of_their_own(parameters: str, code: int) -> None:
    assert refusal(Desk().poll(parameters))[:2] == (400, code)


def test_a_missing_signature_is_a_missing_parameter() -> None:
    answer = Desk().ask(f"{DEFAULT_PATH}?timestamp={START_MS}")
    text = "Mandatory parameter 'signature' was not sent, was empty/null, or malformed."
    assert refusal(answer) == (400, -1102, text)


@pytest.mark.parametrize(
    "payload",
    [
        f"asset=币&timestamp={START_MS}",
        f"asset=a@b&timestamp={START_MS}",
        f"asset=a+b&timestamp={START_MS}",
        f"asset=%zz&timestamp={START_MS}",
    ],
)
def test_what_was_signed_without_being_percent_encoded_first_is_refused(payload: str) -> None:
    assert refusal(Desk().poll(payload)) == BAD_SIGNATURE


def test_a_signature_that_is_wrong_or_not_at_the_end_is_refused() -> None:
    desk = Desk()
    payload = f"timestamp={START_MS}"
    right = signature(desk.account, payload)
    assert refusal(desk.ask(f"{DEFAULT_PATH}?{payload}&signature={'0' * 64}")) == BAD_SIGNATURE
    assert refusal(desk.ask(f"{DEFAULT_PATH}?signature={right}&{payload}")) == BAD_SIGNATURE
    assert refusal(desk.ask(f"{DEFAULT_PATH}?recvWindow=5000&{payload}&signature={right}")) == BAD_SIGNATURE
    other = signature(desk.exchange.accounts[1], payload)
    assert refusal(desk.ask(f"{DEFAULT_PATH}?{payload}&signature={other}")) == BAD_SIGNATURE


def test_weight_is_charged_for_refused_requests_too_and_told_in_the_header() -> None:
    desk = Desk()
    answers = [desk.poll(), desk.poll(key="x" * 64), desk.poll("timestamp=1"), desk.poll()]
    assert [answer.headers[WEIGHT_HEADER] for answer in answers] == ["5", "10", "15", "20"]


def test_every_answer_has_an_id_of_its_own() -> None:
    desk = Desk()
    ids = {desk.poll().headers["x-mbx-uuid"] for _ in range(20)}
    assert len(ids) == 20
    assert {len(one) for one in ids} == {36}


def test_over_the_limit_there_is_a_429_and_then_a_ban_with_its_end() -> None:
    desk = Desk(weight_limit=10, ban_after=1)
    desk.clock.advance(20)
    parameters = f"timestamp={START_MS + 20_000}"
    answers = [desk.poll(parameters) for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429, 418]
    assert refusal(answers[2]) == (429, -1003, "Too many requests; current request has limited.")
    assert (answers[2].headers["Retry-After"], answers[2].headers[WEIGHT_HEADER]) == ("40", "15")
    text = f"Way too much request weight used; IP banned until {START_MS + 140_000}. {ADVICE} bans."
    assert refusal(answers[4]) == (418, -1003, text)
    assert answers[4].headers["Retry-After"] == "120"
    assert desk.ask(TIME_PATH, "GET").status == 418
    assert desk.poll(parameters, address="127.0.0.2").status == 200


def test_all_under_api_shares_a_pool_of_its_own_with_headers_of_its_own() -> None:
    desk = Desk(weight_limit=10)
    desk.poll()
    desk.clock.advance(1.2345)
    answer = desk.ask(TIME_PATH, "GET", key=None)
    assert (answer.status, answer.body) == (200, f'{{"serverTime":{START_MS + 1234}}}'.encode())
    assert answer.headers["x-mbx-used-weight-1m"] == "1"
    assert WEIGHT_HEADER not in answer.headers
    for _ in range(5999):
        desk.ask(TIME_PATH, "GET", key=None)
    used = "Too much request weight used; current limit is 6000 request weight per 1 MINUTE."
    refused = desk.ask(TIME_PATH, "GET", key=None)
    assert refusal(refused) == (429, -1003, f"{used} {ADVICE} polling the API.")
    assert desk.poll(f"timestamp={START_MS}").status == 200


def test_the_time_takes_no_parameters() -> None:
    assert refusal(Desk().ask(f"{TIME_PATH}?x=1", "GET"))[1] == -1104


def test_maintenance_is_told_without_a_key_and_stops_what_needs_one() -> None:
    desk = Desk()
    assert desk.ask(STATUS_PATH, "GET", key=None).body == b'{"status":0,"msg":"normal"}'
    desk.exchange.is_in_maintenance = True
    assert desk.ask(STATUS_PATH, "GET", key=None).body == b'{"status":1,"msg":"system_maintenance"}'
    assert refusal(desk.poll())[:2] == (503, -10001)
    assert desk.ask(TIME_PATH, "GET", key=None).status == 200


def test_a_key_may_read_and_nothing_else() -> None:
    desk = Desk()
    answer = desk.ask(signed(desk.account, f"timestamp={START_MS}", KEY_PATH), "GET")
    restrictions = json.loads(answer.body)
    allowed = [
        name for name, value in restrictions.items() if name.startswith(("enable", "permits")) and value
    ]
    assert (answer.status, allowed, answer.headers[WEIGHT_HEADER]) == (200, ["enableReading"], "1")
    assert len(restrictions) == 13


@pytest.mark.parametrize(
    ("method", "path"), [("GET", DEFAULT_PATH), ("POST", "/sapi/v1/nothing"), ("GET", "/")]
)
def test_other_paths_and_methods_are_not_found(method: str, path: str) -> None:
    assert Desk().ask(path, method).status == 404


def test_an_answer_holds_every_move_up_to_its_moment() -> None:
    desk = Desk(moves_per_s=50)
    for second in range(1, 20):
        desk.clock.advance(1)
        answer = json.loads(desk.poll(f"timestamp={START_MS + second * 1000}").body)
        held = [
            entry
            for entry in desk.exchange.books("sim-0001")
            if entry.time_us <= START_US + second * 1_000_000
        ]
        assert answer == rows(held[-1].balances)
    assert len(desk.exchange.books("sim-0001")) > 10


def test_the_books_are_on_the_exchanges_clock() -> None:
    desk = Desk(skew_ms=-500)
    assert desk.exchange.books("sim-0001")[0].time_us == START_US - 500_000
    desk.exchange.set_skew_ms(250)
    assert desk.exchange.now_us() == START_US + 250_000
    assert desk.exchange.skew_ms == 250
    desk.clock.advance(1)
    assert desk.exchange.freeze() == START_US + 1_250_000


def test_what_moved_before_the_clock_was_set_keeps_its_time() -> None:
    desk = Desk(moves_per_s=50)
    desk.clock.advance(10)
    desk.exchange.set_skew_ms(3_600_000)
    times_us = [entry.time_us for name in ("sim-0001", "sim-0002") for entry in desk.exchange.books(name)]
    assert len(times_us) > 20
    assert max(times_us) <= START_US + 10_000_000


def test_setting_the_clock_shortens_no_ban_and_brings_no_fault_forward() -> None:
    desk = Desk(weight_limit=5, ban_after=0, faults=(Fault(FaultKind.RETRY_AFTER, value="0", after_s=60),))
    for _ in range(3):
        desk.poll()
    desk.exchange.set_skew_ms(3_600_000)
    answer = desk.poll()
    assert (answer.status, answer.headers["Retry-After"]) == (418, "120")


def test_the_clock_does_not_follow_when_the_machines_is_set() -> None:
    desk = Desk()
    desk.clock.utc_ns = lambda: 0  # type: ignore[method-assign]  # an operator's mistake
    assert desk.exchange.now_us() == START_US


def test_frozen_means_that_no_balance_moves_until_it_is_thawed() -> None:
    desk = Desk(moves_per_s=50)
    desk.clock.advance(5)
    desk.exchange.freeze()
    moves = desk.exchange.market.moves
    desk.clock.advance(100)
    desk.exchange.books("sim-0001")
    assert desk.exchange.market.moves == moves > 0
    desk.exchange.thaw()
    desk.clock.advance(5)
    desk.exchange.books("sim-0001")
    assert desk.exchange.market.moves > moves


def test_a_neighbour_shows_in_the_header() -> None:
    desk = Desk()
    desk.clock.advance(30.5)
    desk.exchange.set_neighbour(Neighbour(0.5))
    assert desk.poll(f"timestamp={START_MS + 30_000}").headers[WEIGHT_HEADER] == str(31 * 100 + 5)


def test_what_was_asked_is_counted_by_path_status_code_and_account() -> None:
    desk = Desk(faults=(Fault(FaultKind.ERROR, nth=2, count=1),))
    for _ in range(3):
        desk.poll()
    desk.poll("timestamp=1")
    desk.poll(key="x" * 64)
    desk.ask("/other")
    tally = desk.exchange.tally
    assert tally.statuses[f"POST {DEFAULT_PATH}"] == {200: 2, 503: 1, 400: 2}
    assert tally.statuses["unknown"] == {404: 1}
    assert tally.codes == {-1021: 1, -2015: 1}
    assert tally.polls == {"sim-0001": 4}
    assert desk.exchange.faults.given == {"error": 1}


def test_a_fault_can_be_for_one_account_only() -> None:
    desk = Desk(faults=(Fault(FaultKind.EMPTY_OBJECT, account="sim-0002"),))
    assert desk.poll().body != b"{}"
    desk.account = desk.exchange.accounts[1]
    assert desk.poll().body == b"{}"


def test_who_is_over_the_limit_meets_the_limit_and_not_the_fault_behind_it() -> None:
    faults = (
        Fault(FaultKind.EMPTY_LIST),
        Fault(FaultKind.RETRY_AFTER, value="0"),
        Fault(FaultKind.LATENCY, delay_s=1),
    )
    desk = Desk(weight_limit=5, faults=faults)
    assert desk.poll().body == b"[]"
    answer = desk.poll()
    assert (answer.status, answer.headers["Retry-After"], answer.delay_s) == (429, "0", 1)


def test_latency_lies_between_its_bounds_and_falls_on_both_ways() -> None:
    desk = Desk(latency_ms=(20, 80))
    ways = [desk.exchange.latency_s() for _ in range(500)]
    assert all(0.02 <= there_s + back_s <= 0.08 for there_s, back_s in ways)
    assert min(there_s for there_s, _ in ways) < 0.005
    assert min(back_s for _, back_s in ways) < 0.005
    assert len(set(ways)) == 500


@pytest.mark.parametrize(
    "wrong",
    [
        {"accounts": 0},
        {"key_kinds": ()},
        {"key_kinds": ("dsa",)},
        {"window": "sliding"},
        {"window_s": 0},
        {"weight_limit": 0},
        {"weight": 0},
        {"latency_ms": (5, 1)},
        {"latency_ms": (-1, 1)},
        {"moves_per_s": -1},
        {"ban_after": -1},
        {"ban_min_s": 0},
        {"ban_min_s": 10, "ban_max_s": 5},
        {"neighbour_share": -0.1},
        {"neighbour_mode": "loud"},
        {"keepalive_s": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulatorSettings(**wrong)
