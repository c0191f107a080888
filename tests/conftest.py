"""Async tests run on virtual time unless they are marked ``real_time``; aioresponses is kept working."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import pytest
from hypothesis import HealthCheck, settings

from poller.testing.virtual_time import VirtualClock, VirtualTimeLoop

# Its assertions are those of every test that inherits it.
pytest.register_assert_rewrite("poller.testing.sink_contract")

settings.register_profile(
    "poller", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("poller")

# aioresponses 0.7.9 builds responses without an argument that aiohttp 3.14 requires. Nothing
# happens here once it does so itself, or once aiohttp no longer asks for it.
if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:

    class _Response(aiohttp.ClientResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.setdefault("stream_writer", Mock(output_size=0))
            super().__init__(*args, **kwargs)

    aioresponses.core.ClientResponse = _Response  # type: ignore[attr-defined]  # an import of its own, looked up at call time

# Begun first: or else one of several workers still has a minute's test before it when all others are done.
_LONG = frozenset({"test_day.py", "test_episodes.py", "test_kill.py", "test_many_sinks.py", "test_wheel.py"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _LONG)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("real_time"):
        return {"real": asyncio.new_event_loop}
    return {"virtual": VirtualTimeLoop}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()
