"""Keeps Python's garbage collector away from what a start makes, which lives as long as the process.

The collector looks for rings of objects that nobody holds, and for that goes through all there are, again and
again while they are made. What thousands of accounts are made of, and every module, are no such rings.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Let nothing be collected in the context, and never look at what is there when it ends.

    Whatever nobody holds any more goes at once all the same, then and later, unless it is a ring.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
