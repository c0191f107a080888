"""What docs/sinks/archive.md shows: a configuration, queries for DuckDB, a look with pandas."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.services.pages import blocks, running_page

pytestmark = pytest.mark.real_time


def _ask(directory: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as database:
        found: list[tuple[Any, ...]] = database.execute(
            query.replace("data/archive", str(directory / "data" / "archive"))
        ).fetchall()
        return found


def test_the_page_is_what_happens(tmp_path: Path) -> None:
    with running_page("archive", tmp_path, {}) as page:
        accounts = sorted(page.exchange.accounts)
        # A second poll means that the first one's record was accepted; what was accepted is
        # delivered at the latest when the daemon stops.
        page.exchange.wait_until_all_polled()
    last, days, count = blocks("archive", "sql")
    held = _ask(tmp_path, last)
    assert sorted({row[0] for row in held}) == accounts
    assert all(Decimal(row[8]) > 0 for row in held)  # total
    sums: dict[str, Decimal] = {}
    for row in held:
        sums[row[2]] = sums.get(row[2], Decimal(0)) + Decimal(row[8])
    by_day = _ask(tmp_path, days.replace("2026-01-01", "2020-01-01"))
    if len({day for day, _, _ in by_day}) == 1:  # it was not midnight just now
        assert {asset: total for _, asset, total in by_day} == sums
    assert all(records == different >= len(accounts) for _, records, different in _ask(tmp_path, count))
    printed = page.consume().splitlines()[1:]
    shown = sorted((account, asset, Decimal(total)) for account, asset, total in map(str.split, printed))
    assert shown == sorted((row[0], row[2], Decimal(row[8])) for row in held)
