"""The socket of the door: where it is, how long its name may be, what a line may hold and is made of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

VERSION: Final = 1
LONGEST_REQUEST_BYTES: Final = 64 * 1024
LONGEST_ANSWER_BYTES: Final = 256 * 1024 * 1024
# What a socket's address can hold on Linux, less the zero at its end.
LONGEST_PATH_BYTES: Final = 107


class Request(BaseModel):
    """One line from a command."""

    model_config = ConfigDict(strict=True)

    version: Literal[1]
    verb: str
    arguments: dict[str, Any] = {}


def socket_path(outbox: Path) -> Path:
    """Return where the daemon of an outbox listens."""
    return Path(f"{outbox}.sock")


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Give a name for the socket that an address can hold; good while the context lasts.

    Raises:
        OSError: the directory cannot be opened, or there is no such name.
    """
    if len(os.fsencode(path)) <= LONGEST_PATH_BYTES:
        yield str(path)
        return
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{handle}/{path.name}"
        if len(os.fsencode(short)) > LONGEST_PATH_BYTES:
            raise OSError(f"{path.name} is too long for the name of a socket; give the outbox a shorter one")
        yield short
    finally:
        os.close(handle)


def as_json(value: object) -> dict[Any, Any] | list[Any]:
    """Turn what a document may be made of, and orjson does not know, into what it knows."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is no part of a document")
