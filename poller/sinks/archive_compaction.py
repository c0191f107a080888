"""Merge the archive's files of a day that is over into one.

The merged file gets its name before those it was made of are removed, so nothing is ever missing; between
the two a reader sees rows twice, and after a crash until the next time, which keeps each id once.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poller.sinks.packing import sync_directory

logger = logging.getLogger(__name__)

ROW_GROUP_ROWS = 100_000  # what is in memory at a time, at least; readers skip whole groups
NAME = re.compile(r"(\d{20})-(\d{20})-([0-9a-f]{12})\.parquet")


def compact(directory: Path, half_name: Callable[[Path], Path]) -> None:
    """Merge a directory's files into one, in the order of their positions.

    Whatever goes wrong, the files stay as they are, and a warning says why.

    Args:
        half_name: the name that a file has until it is whole.
    """
    parts = sorted(path for path in directory.iterdir() if NAME.fullmatch(path.name))
    if len(parts) < 2:
        return
    spans = [match.groups() for path in parts if (match := NAME.fullmatch(path.name))]
    # Of the same name as a part only if that one spans all the others: then it takes its place.
    target = directory / f"{spans[0][0]}-{max(last for _, last, _ in spans)}-{spans[0][2]}.parquet"
    half = half_name(target)
    try:
        _merge(parts, half)
        half.rename(target)
        sync_directory(directory)
        for part in parts:
            if part != target:
                part.unlink()
        sync_directory(directory)
    except (OSError, pa.ArrowException) as error:
        with suppress(OSError):
            half.unlink(missing_ok=True)
        logger.warning(
            "a day of the archive stays in many files",
            extra={"directory": str(directory), "error": str(error)},
        )


def _merge(parts: Sequence[Path], half: Path) -> None:
    schema = pa.unify_schemas([pq.read_schema(part) for part in parts])
    waiting: list[Any] = []
    seen: set[str] = set()
    with half.open("wb") as file:
        half.chmod(0o600)
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for part in parts:
                with part.open("rb") as source:
                    waiting.append(_unseen(pq.ParquetFile(source).read(), seen))
                if sum(map(len, waiting)) >= ROW_GROUP_ROWS or part == parts[-1]:
                    # Files of earlier versions may lack columns.
                    rows = pa.concat_tables([schema.empty_table(), *waiting], promote_options="default")
                    writer.write_table(rows.select(schema.names).cast(schema))
                    waiting.clear()
        file.flush()
        os.fsync(file.fileno())


def _unseen(rows: Any, seen: set[str]) -> Any:
    """Return the rows whose ids were not seen, and remember those."""
    ids = rows["id"].to_pylist()
    is_new = [identity not in seen for identity in ids]
    seen.update(ids)
    return rows if all(is_new) else rows.filter(pa.array(is_new))
