"""As much of a Kafka broker as it takes to be refused by one: versions, SASL's hand-shake, and a no.

librdkafka's mock cluster knows no SASL.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
SASL_AUTHENTICATION_FAILED = 58
REASON = "Authentication failed: Invalid username or password"


class SaslBroker:
    """Offers mechanisms, and refuses whoever comes.

    Attributes:
        port: where it listens.
        tokens: what was sent to log in.
    """

    def __init__(self, mechanisms: tuple[str, ...]) -> None:
        self.port = 0
        self.tokens: list[bytes] = []
        self._mechanisms = mechanisms

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                frame = await reader.readexactly(size)
                request, _, correlation, name_size = struct.unpack_from(">hhih", frame)
                answer = struct.pack(">i", correlation) + self._answer(request, frame[10 + name_size :])
                writer.write(struct.pack(">i", len(answer)) + answer)
                await writer.drain()
        except (EOFError, OSError):
            pass
        finally:
            writer.close()

    def _answer(self, request: int, body: bytes) -> bytes:
        if request == API_VERSIONS:
            known = [(API_VERSIONS, 0, 0), (SASL_HANDSHAKE, 0, 1), (SASL_AUTHENTICATE, 0, 0)]
            return struct.pack(">hi", 0, len(known)) + b"".join(struct.pack(">hhh", *one) for one in known)
        if request == SASL_HANDSHAKE:
            return struct.pack(">hi", 0, len(self._mechanisms)) + b"".join(map(_text, self._mechanisms))
        assert request == SASL_AUTHENTICATE
        self.tokens.append(body[4:])
        return struct.pack(">h", SASL_AUTHENTICATION_FAILED) + _text(REASON) + struct.pack(">i", 0)


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


@asynccontextmanager
async def sasl_broker(*mechanisms: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[SaslBroker]:
    """Run one."""
    broker = SaslBroker(mechanisms)
    server = await asyncio.start_server(broker._serve, "127.0.0.1", 0, ssl=tls)
    broker.port = server.sockets[0].getsockname()[1]
    try:
        yield broker
    finally:
        server.close()
