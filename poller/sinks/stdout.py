"""Write records to standard output, one JSON object a line: for pipes, containers and a first look.

``write`` returns when the lines were handed to the operating system. What the reader of the pipe had
not yet read can be lost with it.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
from collections.abc import Sequence
from typing import ClassVar

from poller.errors import SinkBroken, SinkUnavailable
from poller.model import Record
from poller.sinks import SinkOptions
from poller.sinks.threads import OwnThread


class StdoutOptions(SinkOptions):
    """The ``stdout`` sink has no options of its own."""


class StdoutSink:
    """Writes from a thread of its own: a reader that has stopped reading delays only this sink."""

    Options: ClassVar[type[SinkOptions]] = StdoutOptions

    def __init__(self, options: StdoutOptions) -> None:
        self._thread = OwnThread("stdout sink")
        self._is_torn = False  # a write failed within a line

    async def open(self) -> None:
        """Nothing to do: it is open."""

    async def write(self, batch: Sequence[Record]) -> None:
        """Write all lines.

        Raises:
            SinkBroken: nobody will ever read again.
            SinkUnavailable: it cannot be written now; a part may have been, and comes again.
        """
        lines = b"".join(record.payload + b"\n" for record in batch)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write_all, lines)
        except BrokenPipeError as error:
            raise SinkBroken("stdout: its reader has gone") from error
        except (OSError, ValueError) as error:
            raise SinkUnavailable(f"stdout: {error}") from error

    async def close(self) -> None:
        """Let go of the thread, also of one that is stuck in a write."""
        self._thread.shutdown(wait=False)

    def _write_all(self, lines: bytes) -> None:
        # Past Python's own buffer: what it holds when a write fails would come out once more at the end.
        handle = sys.stdout.fileno()
        if self._is_torn:
            lines = b"\n" + lines  # ends the half line, which a reader has to skip anyway
        left = lines
        try:
            while left:
                left = left[_write_some(handle, left) :]
        finally:
            written = lines[: len(lines) - len(left)]
            self._is_torn = not written.endswith(b"\n") if written else self._is_torn


def _write_some(handle: int, left: bytes) -> int:
    try:
        return os.write(handle, left)
    except BlockingIOError:
        # Whoever shares the terminal or pipe may have made it non-blocking, for all of us.
        select.select([], [handle], [])
        return 0
