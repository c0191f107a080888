"""What a start makes is not looked at by the garbage collector, and the collector works afterwards."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from poller.garbage import collector_at_rest


class Ring:
    """Holds itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_nothing_is_collected_while_it_rests_and_what_was_made_is_left_alone() -> None:
    with collector_at_rest():
        assert not gc.isenabled()
        made = Ring()
    assert gc.isenabled()
    assert not any(one is made for one in gc.get_objects())


def test_rings_that_are_made_later_are_collected() -> None:
    with collector_at_rest():
        pass
    gone = weakref.ref(Ring())
    gc.collect()
    assert gone() is None


def test_it_works_again_after_a_start_that_failed() -> None:
    with pytest.raises(OSError, match="no such file"), collector_at_rest():
        raise OSError("no such file")
    assert gc.isenabled()
