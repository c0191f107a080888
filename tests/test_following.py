"""When the configuration is read anew: asked, changed and settled, or refused a while ago; on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from poller.config.footprint import Footprint, Footprints
from poller.errors import ConfigError
from poller.following import LOOK_EVERY_S, TRY_AGAIN_S, Following
from poller.testing.virtual_time import VirtualClock


class Reloads:
    """Stands for what reads: notes when it is asked, and refuses if told to."""

    def __init__(self, clock: VirtualClock, path: Path) -> None:
        self._clock = clock
        self.at_s: list[float] = []
        self.completed_s: list[float] = []
        self.refuses = False
        self.footprint: Footprint | None = None
        self.refused_s: float | None = None
        self.reloading = SimpleNamespace(is_watching=True)
        nothing: dict[str, Any] = {}
        config = SimpleNamespace(
            path=path,
            keys=nothing,
            discover=nothing,
            egress=nothing,
            sinks=nothing,
            server_token=None,
            tracing=None,
            reload=self.reloading,
        )
        self.now = SimpleNamespace(config=config, secrets=SimpleNamespace(unavailable={}))

    async def reload(self) -> tuple[str, ...]:
        self.at_s.append(self._clock.monotonic_s())
        self.footprint = Footprints(self.now.config.path).take(self.now.config)
        self.refused_s = self._clock.monotonic_s() if self.refuses else None
        if self.refuses:
            raise ConfigError("a mistake")
        return ()

    async def complete(self) -> None:
        self.completed_s.append(self._clock.monotonic_s())

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[Following]:
        following = Following(cast("Any", self), self._clock)
        task = asyncio.create_task(following.run())
        await asyncio.sleep(LOOK_EVERY_S / 2)
        yield following
        task.cancel()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.yaml"
    path.write_text("accounts: {}\n")
    return path


@pytest.fixture
def reloads(clock: VirtualClock, file: Path) -> Reloads:
    return Reloads(clock, file)


async def test_nothing_is_read_while_nothing_changes(reloads: Reloads) -> None:
    async with reloads.followed():
        await asyncio.sleep(3600)
    assert reloads.at_s == []


async def test_what_changed_is_read_once_it_stands_still(reloads: Reloads, file: Path) -> None:
    async with reloads.followed():
        file.write_text("accounts: {a: 1}\n")
        await asyncio.sleep(LOOK_EVERY_S)  # seen at 2 s, and changed again
        file.write_text("accounts: {a: 1, b: 2}\n")
        await asyncio.sleep(600)
    assert reloads.at_s == [3 * LOOK_EVERY_S]


async def test_what_changed_between_reading_and_following_is_read(reloads: Reloads, file: Path) -> None:
    reloads.footprint = Footprints(file).take(reloads.now.config)
    file.write_text("accounts: {a: 1}\n")
    async with reloads.followed():
        await asyncio.sleep(600)
    assert reloads.at_s == [2 * LOOK_EVERY_S]


async def test_a_file_that_is_gone_for_a_moment_is_read_when_it_is_back(reloads: Reloads, file: Path) -> None:
    async with reloads.followed():
        file.rename(file.with_name("away"))
        await asyncio.sleep(LOOK_EVERY_S)
        file.with_name("other").write_text("accounts: {}\n")
        file.with_name("other").rename(file)
        await asyncio.sleep(600)
    assert reloads.at_s == [3 * LOOK_EVERY_S]


async def test_whoever_asks_need_not_wait_and_is_heard_without_watching(reloads: Reloads, file: Path) -> None:
    reloads.reloading.is_watching = False
    async with reloads.followed() as following:
        file.write_text("accounts: {a: 1}\n")
        await asyncio.sleep(600)
        assert reloads.at_s == []
        following.ask()
        following.ask()
        await asyncio.sleep(600)
    assert reloads.at_s == [601.0]


async def test_what_was_read_because_somebody_asked_is_not_read_again_for_its_files(
    reloads: Reloads, file: Path
) -> None:
    async with reloads.followed() as following:
        file.write_text("accounts: {a: 1}\n")
        following.ask()
        await asyncio.sleep(600)
        file.write_text("accounts: {a: 1, b: 2}\n")
        await reloads.reload()  # through another door
        await asyncio.sleep(600)
    assert reloads.at_s == [1.0, 601.0]


async def test_what_was_refused_to_somebody_else_is_tried_again_too(reloads: Reloads) -> None:
    reloads.refuses = True
    async with reloads.followed():
        with pytest.raises(ConfigError):
            await reloads.reload()
        reloads.refuses = False
        await asyncio.sleep(600)
    assert reloads.at_s == [1.0, 2 * LOOK_EVERY_S + TRY_AGAIN_S - LOOK_EVERY_S]


async def test_what_was_refused_is_tried_again_now_and_then(reloads: Reloads, file: Path) -> None:
    reloads.refuses = True
    async with reloads.followed():
        file.write_text("accounts: {a: 1}\n")
        await asyncio.sleep(2.5 * TRY_AGAIN_S)
        reloads.refuses = False
        await asyncio.sleep(600)
    assert reloads.at_s == [2 * LOOK_EVERY_S + number * TRY_AGAIN_S for number in range(4)]


async def test_what_could_not_be_had_is_tried_again_now_and_then(reloads: Reloads) -> None:
    reloads.reloading.is_watching = False
    reloads.now.secrets.unavailable["accounts.alice"] = "sealed"
    async with reloads.followed():
        await asyncio.sleep(3 * TRY_AGAIN_S)
    assert reloads.completed_s == [TRY_AGAIN_S, 2 * TRY_AGAIN_S, 3 * TRY_AGAIN_S]
