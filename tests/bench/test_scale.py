"""The measurements of thousands of accounts, with a few: that they run to their end, and their arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.scale.fleet import interval_s, quantile
from bench.scale.load import bound


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled code and the backlog, for all tests here."""
    return tmp_path_factory.mktemp("cache")


def printed(part: str, cache: Path, capsys: pytest.CaptureFixture[str]) -> str:
    small = "--accounts 12 --seconds 1 --rounds 1 --browsers 2 --backlog 60 --sizes 5,10 --trace"
    main(["scale", "--part", part, *small.split(), "--cache", str(cache)])
    return capsys.readouterr().out


@pytest.mark.real_time
def test_the_load_of_a_few_accounts_is_measured(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed("load", cache, capsys)
    assert "12 accounts every 1 s, rows of 1 s" in text
    assert all(
        f"\n{row} " in text for row in ("plain", "watched", "plain, median", "watched, median", "ratio")
    )


@pytest.mark.real_time
def test_the_memory_of_a_few_accounts_is_measured(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed("memory", cache, capsys)
    assert "    10 accounts, polled 1 times or more: rss " in text
    assert "kB an account\n" in text
    assert "altogether\n" in text


@pytest.mark.real_time
def test_the_start_of_a_few_accounts_is_measured(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed("start", cache, capsys)
    assert "60 records wait; 12 accounts; median of 1:\n  interpreter " in text
    assert text.count("  first-poll ") == 3
    assert (cache / "backlog-60-12.made").exists()


def test_an_interval_asks_for_all_that_one_address_may_poll() -> None:
    assert interval_s(5000) == 139
    assert 5000 * 5 * 60 / interval_s(5000) == pytest.approx(10_800, rel=0.01)
    assert interval_s(1) == 1


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.99) == 4.0
    assert math.isnan(quantile([], 0.5))


def test_of_a_histogram_only_a_bound_is_known() -> None:
    counts = {0.01: 90.0, 0.1: 99.0, math.inf: 100.0}
    assert (bound(counts, 0.5), bound(counts, 0.99), bound(counts, 1.0)) == (0.01, 0.1, math.inf)
    assert math.isnan(bound({}, 0.5))
