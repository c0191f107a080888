"""The body of an answer, decompressed within a bound: what a few bytes can grow to is theirs to choose."""

from __future__ import annotations

import zlib
from typing import Final

_GZIP: Final = 31  # zlib's numbers for the container around the deflated data
_ZLIB: Final = 15
_BARE: Final = -15


class BodyTooLarge(ValueError):
    """The body exceeds the bound, compressed or not."""


class BodyDamaged(ValueError):
    """The body is not what its headers say, or is cut short."""


class Body:
    """Collects one body, chunk by chunk.

    Args:
        encoding: value of ``Content-Encoding``; empty for none.
        limit_bytes: most bytes of it, both as sent and decompressed.

    Raises:
        BodyDamaged: an encoding that we never ask for.
    """

    def __init__(self, encoding: str, *, limit_bytes: int) -> None:
        self._encoding = encoding.strip().lower()
        if self._encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise BodyDamaged("an encoding that was not asked for")
        self._limit_bytes = limit_bytes
        self._received_bytes = 0
        self._parts = bytearray()
        self._inflater: zlib._Decompress | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next piece as it was sent.

        Raises:
            BodyTooLarge: it is beyond the bound; no more than the bound was decompressed.
            BodyDamaged: it cannot be decompressed.
        """
        # Counted as sent, too: compressed data can go on for ever and come to nothing.
        self._received_bytes += len(chunk)
        if self._received_bytes > self._limit_bytes:
            raise BodyTooLarge("too many bytes")
        self._parts += chunk if self._encoding in {"", "identity"} else self._inflated(chunk)
        if len(self._parts) > self._limit_bytes:
            raise BodyTooLarge("too many bytes decompressed")

    def finish(self) -> bytes:
        """Return the whole body.

        Raises:
            BodyDamaged: the compressed data has no end.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise BodyDamaged("the compressed data has no end")
        return bytes(self._parts)

    def _inflated(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        if self._inflater is None:
            self._inflater = zlib.decompressobj(self._container(chunk[0]))
        if self._inflater.eof:
            # A second member is legal and never sent in earnest; thousands of tiny ones are an attack.
            raise BodyDamaged("data behind the end of the compressed data")
        try:
            inflated = self._inflater.decompress(chunk, self._limit_bytes - len(self._parts) + 1)
        except zlib.error:
            raise BodyDamaged("the compressed data is damaged") from None
        if self._inflater.unused_data:
            raise BodyDamaged("data behind the end of the compressed data")
        return inflated

    def _container(self, first: int) -> int:
        if self._encoding != "deflate":
            return _GZIP
        # "deflate" means zlib's container; some send the bare data, which never begins like it.
        return _ZLIB if first & 0x0F == 8 and first >> 4 <= 7 else _BARE
