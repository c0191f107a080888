"""Compress a closed file, so that at every moment one of the two forms is there and whole."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)


def pack(closed: Path) -> None:
    """Replace a file by ``<name>.gz``; the same contents give the same bytes.

    Whatever goes wrong, the file stays as it is, and a warning says why.
    """
    target, half = closed.with_name(f"{closed.name}.gz"), closed.with_name(f"{closed.name}.gz.part")
    try:
        with closed.open("rb") as source, half.open("wb") as packed:
            half.chmod(0o600)
            # No time and no name in it: the same after a crash and a second try.
            with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as stream:
                shutil.copyfileobj(source, stream)
            packed.flush()
            os.fsync(packed.fileno())
        half.rename(target)
        sync_directory(closed.parent)
        closed.unlink()
    except FileNotFoundError:
        return  # it was packed already, or somebody took it away
    except OSError as error:
        half.unlink(missing_ok=True)
        logger.warning("a closed file stays uncompressed", extra={"file": str(closed), "error": str(error)})


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
