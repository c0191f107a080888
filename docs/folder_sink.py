"""Write every record into a file of its own, named after its id."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from poller.errors import SinkUnavailable
from poller.model import Record
from poller.sinks import SinkOptions


class FolderOptions(SinkOptions):
    path: Path = Field(description="The folder; it is made if it is missing.")


class FolderSink:
    Options: ClassVar[type[SinkOptions]] = FolderOptions

    def __init__(self, options: FolderOptions) -> None:
        self._path = options.path

    async def open(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)

    async def write(self, batch: Sequence[Record]) -> None:
        try:
            await asyncio.to_thread(self._write, batch)
        except OSError as error:
            raise SinkUnavailable(f"{self._path}: {error.strerror}") from error

    async def close(self) -> None:
        pass

    def _write(self, batch: Sequence[Record]) -> None:
        for record in batch:
            with (self._path / f"{record.id}.json").open("wb") as file:
                file.write(record.payload)
                os.fsync(file.fileno())
