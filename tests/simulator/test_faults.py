from __future__ import annotations

import gzip
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.simulator.faults import (
    DEFAULT_PATH,
    HTML,
    JSON,
    ON_EVERY_ANSWER,
    TRAP_PATH,
    WEIGHT_HEADER,
    Answer,
    Ending,
    Fault,
    FaultKind,
    Faults,
    UnfitFault,
    spoil,
)

S = 1_000_000
GOOD = Answer(200, b'[{"asset":"BTC"}]', {"Content-Type": JSON, WEIGHT_HEADER: "5", "x-mbx-uuid": "u"})


def hits(fault: Fault, requests: int = 10, step_us: int = S) -> list[int]:
    """Return the numbers of the requests that are hit, one a step, the first one step after the fault was set."""
    faults = Faults(Random(1))
    faults.set([fault], 0)
    return [number for number in range(1, requests + 1) if faults.pick(DEFAULT_PATH, "a", number * step_us)]


@pytest.mark.parametrize(
    ("script", "hit"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"nth": 3}, [3, 4, 5, 6, 7, 8, 9, 10]),
        ({"nth": 3, "count": 2}, [3, 4]),
        ({"after_s": 4.0, "count": 3}, [4, 5, 6]),
        ({"count": 1}, [1]),
        ({"rate": 0.0}, []),
        ({"account": "a", "count": 1}, [1]),
        ({"account": "b"}, []),
        ({"path": "/other"}, []),
        ({"path": ""}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ],
)
def test_a_script_says_which_requests_are_hit(script: dict[str, Any], hit: list[int]) -> None:
    assert hits(Fault(FaultKind.RESET, **script)) == hit


def test_a_rate_hits_about_that_share_and_the_same_requests_for_the_same_seed() -> None:
    fault = Fault(FaultKind.RESET, rate=0.3)
    assert 2700 < len(hits(fault, 10_000)) < 3300
    assert hits(fault, 100) == hits(fault, 100)


def test_only_requests_of_the_fault_s_own_account_are_counted() -> None:
    faults = Faults(Random(1))
    faults.set([Fault(FaultKind.RESET, account="b", nth=2)], 0)
    picked = [bool(faults.pick(DEFAULT_PATH, account, S)) for account in "abab"]
    assert picked == [False, False, False, True]


def test_setting_faults_replaces_those_before_and_counts_anew() -> None:
    faults = Faults(Random(1))
    faults.set([Fault(FaultKind.RESET, count=1)], 0)
    faults.pick(DEFAULT_PATH, None, S)
    faults.set([Fault(FaultKind.RESET, count=1)], S)
    assert faults.pick(DEFAULT_PATH, None, S) == [Fault(FaultKind.RESET, count=1)]
    faults.set([], S)
    assert faults.pick(DEFAULT_PATH, None, S) == faults.current() == []
    assert faults.given == {"reset": 2}


def test_a_step_of_the_clock_does_not_bring_a_fault_forward() -> None:
    faults = Faults(Random(1))
    faults.set([Fault(FaultKind.RESET, after_s=10)], 0)
    faults.step_clock(3600 * S)
    assert faults.pick(DEFAULT_PATH, None, 3609 * S) == []
    assert len(faults.pick(DEFAULT_PATH, None, 3610 * S)) == 1


def spoiled(kind: FaultKind, **options: Any) -> Answer:
    return spoil(GOOD, Fault(kind, **options), Random(1))


@pytest.mark.parametrize(
    ("kind", "options", "status", "content_type", "begins"),
    [
        (FaultKind.ERROR, {}, 503, JSON, b'{"code":-1000'),
        (FaultKind.ERROR, {"status": 500}, 500, JSON, b'{"code":-1000'),
        (FaultKind.ERROR_HTML, {}, 503, HTML, b"<html>"),
        (FaultKind.ERROR_HTML, {"status": 504}, 504, HTML, b"<html><head><title>504"),
        (FaultKind.ERROR_OBJECT, {}, 200, JSON, b'{"code":-1003'),
        (FaultKind.ERROR_OBJECT, {"value": '{"success":false}'}, 200, JSON, b'{"success":false}'),
        (FaultKind.WAF, {}, 403, HTML, b"<!DOCTYPE HTML>"),
        (FaultKind.EMPTY_LIST, {}, 200, JSON, b"[]"),
        (FaultKind.EMPTY_OBJECT, {}, 200, JSON, b"{}"),
        (FaultKind.BODY, {}, 200, JSON, b""),
        (FaultKind.BODY, {"value": "null", "status": 451}, 451, JSON, b"null"),
        (FaultKind.BODY, {"value": "[\udcff\udcfe"}, 200, JSON, b"[\xff\xfe"),
        (FaultKind.REDIRECT, {}, 302, JSON, b""),
        (FaultKind.TRUNCATED, {}, 200, JSON, GOOD.body[:8]),
    ],
)
def test_what_a_fault_makes_of_an_answer(
    kind: FaultKind, options: dict[str, Any], status: int, content_type: str, begins: bytes
) -> None:
    answer = spoiled(kind, **options)
    assert (answer.status, answer.headers["Content-Type"]) == (status, content_type)
    assert answer.body.startswith(begins)
    assert answer.ending is Ending.WHOLE


def test_the_firewall_adds_none_of_the_exchanges_headers() -> None:
    assert spoiled(FaultKind.WAF).headers.keys() == {"Content-Type"}


def test_a_redirect_leads_into_the_trap() -> None:
    assert spoiled(FaultKind.REDIRECT).headers["Location"] == TRAP_PATH


def test_a_bomb_unpacks_to_a_huge_empty_list() -> None:
    answer = spoiled(FaultKind.BOMB, size_bytes=1_000_000)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(answer.body) < 2000
    unpacked = gzip.decompress(answer.body)
    assert (len(unpacked), unpacked.replace(b" ", b"")) == (1_000_000, b"[]")


@pytest.mark.parametrize("value", [None, "abc", "-1", "999999"])
def test_headers_can_be_wrong_or_missing(value: str | None) -> None:
    assert spoiled(FaultKind.WEIGHT_HEADER, value=value).headers.get(WEIGHT_HEADER) == value
    assert spoiled(FaultKind.RETRY_AFTER, value=value).headers.get("Retry-After") == value
    assert spoiled(FaultKind.RETRY_AFTER, value=value).headers[WEIGHT_HEADER] == "5"


@given(st.floats(0, 10), st.floats(0, 10), st.integers())
def test_latency_is_between_the_delay_and_the_delay_with_its_jitter(
    delay_s: float, jitter_s: float, seed: int
) -> None:
    fault = Fault(FaultKind.LATENCY, delay_s=delay_s, jitter_s=jitter_s)
    twice = spoil(spoil(GOOD, fault, Random(seed)), fault, Random(seed))
    assert 2 * delay_s <= twice.delay_s <= 2 * (delay_s + jitter_s) + 1e-9


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        (FaultKind.RESET, Ending.RESET),
        (FaultKind.RESET_WITHIN, Ending.RESET_WITHIN),
        (FaultKind.CLOSE_WITHIN, Ending.CLOSE_WITHIN),
        (FaultKind.STALL, Ending.STALL),
        (FaultKind.STALL_WITHIN, Ending.STALL_WITHIN),
    ],
)
def test_faults_of_the_wire_leave_the_answer_and_change_its_ending(kind: FaultKind, ending: Ending) -> None:
    answer = spoiled(kind)
    assert (answer.status, answer.body, answer.ending, answer.stall_s) == (200, GOOD.body, ending, 60.0)
    assert spoiled(kind, delay_s=2.5).stall_s == 2.5
    assert kind in ON_EVERY_ANSWER


@pytest.mark.parametrize("kind", FaultKind)
def test_every_kind_can_be_set_by_json_and_read_again(kind: FaultKind) -> None:
    fault = Fault(kind, rate=0.5, nth=2, count=3, account="a", delay_s=1.5, status=500, value="7")
    assert Fault.from_json(fault.to_json()) == fault
    spoil(GOOD, fault, Random(1))


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], "an object such as"),
        ({}, "kind is missing"),
        ({"kind": "explode"}, "explode"),
        ({"kind": "reset", "often": 1}, "unknown key 'often'; known: kind, rate"),
        ({"kind": "reset", "rate": 1.5}, "rate: 1.5 is not between 0 and 1"),
        ({"kind": "reset", "rate": "0.5"}, "rate: '0.5' will not do"),
        ({"kind": "reset", "nth": True}, "nth: True will not do"),
        ({"kind": "reset", "nth": 0}, "counted from 1"),
        ({"kind": "reset", "count": 0}, "counted from 1"),
        ({"kind": "latency", "delay_s": -1}, "cannot be negative"),
        ({"kind": "error", "status": 99}, "status: 99"),
        ({"kind": "bomb", "size_bytes": 2**31}, "size_bytes"),
        ({"kind": "weight_header", "value": "1\r\nX: 2"}, "printable ASCII"),
        ({"kind": "body", "value": "\ud800"}, "surrogates"),
    ],
)
def test_a_fault_that_is_none_is_refused_with_the_reason(document: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Fault.from_json(document)
    assert issubclass(UnfitFault, ValueError)
