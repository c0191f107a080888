"""Baselines as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.model import AMOUNT_FIELDS, Baseline, State, plain
from poller.outbox.codec import decode_baseline, describe_baseline, encode_baseline
from tests.strategies import assets, holdings

baselines = st.builds(
    Baseline,
    account=st.text(min_size=1),
    sequence=st.integers(0, 2**63 - 1),
    balances=st.none() | holdings,
    asset=st.none() | assets,
    state=st.sampled_from(State),
    since_ns=st.integers(0, 2**63 - 1),
)


@given(baselines)
def test_a_baseline_comes_back_as_it_was(baseline: Baseline) -> None:
    assert decode_baseline(baseline.account, encode_baseline(baseline)) == baseline


@given(baselines)
def test_a_description_has_every_amount_as_text_and_the_exact_total(baseline: Baseline) -> None:
    described = describe_baseline(baseline.account, encode_baseline(baseline))
    assert described == {
        "account": baseline.account,
        "sequence": baseline.sequence,
        "state": baseline.state.value,
        "since_ns": baseline.since_ns,
        "balances": [
            {
                "asset": balance.asset,
                **{field: plain(getattr(balance, field)) for field in AMOUNT_FIELDS},
                "total": plain(balance.total),
                "btc_valuation": None if balance.btc_valuation is None else plain(balance.btc_valuation),
            }
            for balance in baseline.balances or ()
        ],
    }


@given(baselines, st.data())
def test_no_part_of_a_baseline_passes_for_the_whole(baseline: Baseline, data: st.DataObject) -> None:
    encoded = encode_baseline(baseline)
    part = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    with pytest.raises(ValueError, match="damaged baseline of account"):
        decode_baseline(baseline.account, part)


@pytest.mark.parametrize(
    "encoded",
    [
        b"[]",
        b"{}",
        b'{"sequence":1,"balances":[["BTC","x","0","0","0","0",null]],"asset":null,"state":"ok","since_ns":0}',
        b'{"sequence":1,"balances":[["BTC","1"]],"asset":null,"state":"ok","since_ns":0}',
        b'{"sequence":1,"balances":null,"asset":null,"state":"fine","since_ns":0}',
    ],
)
def test_what_is_no_baseline_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="damaged baseline of account 'alice'"):
        decode_baseline("alice", encoded)
    with pytest.raises(ValueError, match="damaged baseline of account 'alice'"):
        describe_baseline("alice", encoded)
