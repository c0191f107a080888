"""Group commit on its own, with commits that end when the test says so."""

from __future__ import annotations

import asyncio

import pytest

from poller.errors import OutboxFailed, OutboxFull
from poller.outbox.commits import GROUP_WRITES, GroupCommit
from poller.outbox.gaps import Gaps
from poller.outbox.ledger import Ledger
from poller.outbox.values import Committed, PutEgress, Standing, Write

STANDING = Standing(Ledger(1, 0, {}, Gaps()), used_bytes=0, is_full=False)


class Disk:
    """Takes groups and lets the test end them."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self._running: asyncio.Future[Committed] | None = None

    def commit(self, writes: object) -> asyncio.Future[Committed]:
        assert self._running is None or self._running.done(), "two commits at once"
        self.groups.append([write.name for write in writes])  # type: ignore[attr-defined]  # PutEgress all
        self._running = asyncio.get_running_loop().create_future()
        return self._running

    def end(self, *outcomes: OutboxFull | None, error: BaseException | None = None) -> None:
        assert self._running is not None
        if error is not None:
            self._running.set_exception(error)
            return
        outcomes = outcomes or (None,) * len(self.groups[-1])
        self._running.set_result(Committed(STANDING, more=False, outcomes=outcomes))


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def commits(disk: Disk) -> GroupCommit:
    return GroupCommit(disk.commit)


def write(name: str) -> Write:
    return PutEgress(name, b"")


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_writes_of_one_moment_are_one_group_and_later_ones_wait_for_the_next(
    disk: Disk, commits: GroupCommit
) -> None:
    first = [commits.submit(write(name)) for name in "ab"]
    await turns()
    second = [commits.submit(write(name)) for name in "cd"]
    await turns()
    third = commits.submit(write("e"))
    assert disk.groups == [["a", "b"]]
    disk.end()
    await turns()
    assert [future.done() for future in (*first, *second, third)] == [True, True, False, False, False]
    assert disk.groups == [["a", "b"], ["c", "d", "e"]]
    disk.end()
    await asyncio.gather(*second, third)


async def test_each_write_gets_its_own_outcome(disk: Disk, commits: GroupCommit) -> None:
    futures = [commits.submit(write(name)) for name in "abc"]
    await turns()
    full = OutboxFull("no room")
    disk.end(None, full, None)
    assert await asyncio.gather(*futures, return_exceptions=True) == [None, full, None]


@pytest.mark.parametrize("error", [OutboxFailed("the disk is gone"), MemoryError()])
async def test_a_commit_that_breaks_fails_its_whole_group_and_not_the_next(
    disk: Disk, commits: GroupCommit, error: BaseException
) -> None:
    broken = [commits.submit(write(name)) for name in "ab"]
    await turns()
    next_one = commits.submit(write("c"))
    disk.end(error=error)
    results = await asyncio.gather(*broken, return_exceptions=True)
    assert [type(result) for result in results] == [OutboxFailed, OutboxFailed]
    disk.end()
    await next_one


async def test_a_waiter_that_left_withdraws_nothing(disk: Disk, commits: GroupCommit) -> None:
    futures = [commits.submit(write(name)) for name in "abc"]
    futures[1].cancel()
    await turns()
    assert disk.groups == [["a", "b", "c"]]
    futures[0].cancel()
    disk.end()
    await futures[2]


async def test_a_group_is_bounded_so_that_the_first_does_not_wait_for_all(
    disk: Disk, commits: GroupCommit
) -> None:
    futures = [commits.submit(write(str(number))) for number in range(GROUP_WRITES + 1)]
    await turns()
    assert [len(group) for group in disk.groups] == [GROUP_WRITES]
    disk.end()
    await turns()
    assert [len(group) for group in disk.groups] == [GROUP_WRITES, 1]
    disk.end()
    await asyncio.gather(*futures)


async def test_idle_waits_for_everything_that_was_asked_for(disk: Disk, commits: GroupCommit) -> None:
    await commits.idle()
    futures = [commits.submit(write("a"))]
    waiting = asyncio.create_task(commits.idle())
    await turns()
    futures.append(commits.submit(write("b")))
    disk.end()
    await turns()
    assert not waiting.done()
    disk.end()
    await asyncio.gather(waiting, *futures)
