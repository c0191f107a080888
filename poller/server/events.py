"""Server-sent events: one hub looks at the overview once a second, for all who listen.

A reader that does not read is cut off: it comes back by itself and is told everything anew. Nobody else
notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from poller.overview import Overview
from poller.server.deltas import Delta, Told, happening_event, hello_event, take_sample
from poller.server.settings import ServerSettings

logger = logging.getLogger(__name__)

COMMENT = b":\n\n"
_NEWCOMERS_TOGETHER_S = 0.05  # those who come together are told together
_FRAME_BYTES = 64  # what an event that waits costs besides its own bytes


class Subscriber:
    """One reader.

    Args:
        after: number of the last happening it knows; ``None`` if it knows none and wants none of before.
        cut_off: called when it is cut off.
    """

    def __init__(self, after: int | None, cut_off: Callable[[], object]) -> None:
        self.after = after
        self.is_new = True
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._limit = 0
        self._filled = asyncio.Event()
        self._is_ended = False
        self._cut_off = cut_off

    @property
    def waiting_bytes(self) -> int:
        """How much it has not read yet."""
        return self._bytes

    def put(self, chunk: bytes, *, allowed_bytes: int) -> bool:
        """Give it an event; tell whether it is still there afterwards.

        What it is told while it is new makes its queue longer instead of filling it.
        """
        if self._is_ended:
            return False
        size = len(chunk) + _FRAME_BYTES
        if self.is_new:
            self._limit += size
        elif self._bytes + size > self._limit + allowed_bytes:
            self.end()
            self._cut_off()
            return False
        self._queue.append(chunk)
        self._bytes += size
        self._filled.set()
        return True

    def end(self) -> None:
        """End its stream at once: what waits is dropped."""
        self._is_ended = True
        self._queue.clear()
        self._bytes = 0
        self._filled.set()

    async def next(self, silence_s: float) -> bytes | None:
        """Return what to read next: an event, a comment after a silence; ``None`` at the end."""
        try:
            async with asyncio.timeout(silence_s):
                await self._filled.wait()
        except TimeoutError:
            return COMMENT
        if self._is_ended:
            return None
        chunk = self._queue.popleft()
        self._bytes -= len(chunk) + _FRAME_BYTES
        if not self._queue:
            self._filled.clear()
        return chunk


class Hub:
    """Tells all subscribers alike. While there is none, it does not even look.

    Attributes:
        samples: how often it has looked.
        encoded: events made, each once however many read it.
    """

    def __init__(self, overview: Overview, settings: ServerSettings) -> None:
        self._overview = overview
        self._settings = settings
        self._subscribers: set[Subscriber] = set()
        self._newcomer = asyncio.Event()
        self._told = Told()
        self._is_closed = False
        self.samples = 0
        self.encoded = 0

    def __len__(self) -> int:
        return len(self._subscribers)

    def subscribe(self, after: int | None, cut_off: Callable[[], object]) -> Subscriber | None:
        """Take a reader in, who is told everything soon; ``None`` if there are too many, or we close."""
        if self._is_closed or len(self._subscribers) >= self._settings.most_streams:
            return None
        subscriber = Subscriber(after, cut_off)
        self._subscribers.add(subscriber)
        self._newcomer.set()
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a reader."""
        self._subscribers.discard(subscriber)

    def close(self) -> None:
        """End all streams at once."""
        self._is_closed = True
        for subscriber in self._subscribers:
            subscriber.end()
        self._subscribers.clear()

    async def run(self) -> None:
        """Look and tell until cancelled."""
        while True:
            if not self._subscribers:
                self._newcomer.clear()
                await self._newcomer.wait()
            await asyncio.sleep(_NEWCOMERS_TOGETHER_S)
            self._newcomer.clear()
            try:
                await self._tell()
            except Exception:
                # Whoever listens comes back, and is told everything; this must go on.
                logger.exception("what there is to see could not be told; streams begin anew")
                self._drop_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.sample_s - _NEWCOMERS_TOGETHER_S):
                    await self._newcomer.wait()

    async def _tell(self) -> None:
        known = [subscriber for subscriber in self._subscribers if not subscriber.is_new]
        new = [subscriber for subscriber in self._subscribers if subscriber.is_new]
        # Which accounts are to be told is known before the first wait: both groups are told of the same moment.
        self.samples += 1
        told = self._told if known else Told(happening=self._last_happening())
        sample = take_sample(self._overview, told)
        delta = Delta(told, sample, self._overview)
        self._told = delta.told
        whole = delta
        if new and known:
            _, everybody = self._overview.changed()
            whole = Delta(Told(), replace(sample, changed=everybody), self._overview)
        missed = {subscriber: self._missed(subscriber, delta.told.happening) for subscriber in new}
        if known:
            await self._put(known, delta)
        if new:
            await self._put(new, [hello_event(sample.status, self._settings.sample_s)])
            await self._put(new, whole.state())
        for subscriber in new:
            await self._put([subscriber], missed[subscriber])
            subscriber.is_new = False

    async def _put(self, subscribers: Iterable[Subscriber], events: Iterable[bytes]) -> None:
        for chunk in events:
            self.encoded += 1
            for subscriber in subscribers:
                if not subscriber.put(chunk, allowed_bytes=self._settings.queue_bytes):
                    self.leave(subscriber)
            # Polls go on between two events.
            await asyncio.sleep(0)

    def _last_happening(self) -> int:
        happenings = self._overview.happenings()
        return happenings[-1].number if happenings else 0

    def _missed(self, subscriber: Subscriber, last: int) -> list[bytes]:
        """Return what happened since a reader was last here, up to where the others are."""
        if subscriber.after is None:
            return []
        # One that is yet to come is of an earlier life, and the clock was set back since.
        after = subscriber.after if subscriber.after <= last else 0
        return [
            happening_event(seen) for seen in self._overview.happenings(after=after) if seen.number <= last
        ]

    def _drop_all(self) -> None:
        for subscriber in self._subscribers:
            subscriber.end()
        self._subscribers.clear()


async def stream(
    subscriber: Subscriber, write: Callable[[bytes], Awaitable[None]], settings: ServerSettings
) -> None:
    """Write what a subscriber is to read until its stream ends.

    Raises:
        TimeoutError: the reader did not take an event in time.
    """
    while (chunk := await subscriber.next(settings.silence_s)) is not None:
        async with asyncio.timeout(settings.answer_s):
            await write(chunk)
