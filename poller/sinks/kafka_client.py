"""What aiokafka lacks: to say why it is still trying, and to end in time.

Its producer retries most errors for ever and tells only its log about them. Here those lines are kept
off ours, where they would come several times a second, and the last ones are at hand when a call was
given up. ``stop`` of the producer waits until everything was delivered, so a broker that hangs would
hold it up; ``end`` does not wait.

Reaches into private parts of aiokafka 0.14; the extra in ``pyproject.toml`` admits no later version.
"""

# ruff: noqa: SLF001  # see above

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

logger = logging.getLogger(__name__)

END_S = 2.0  # longest that ``end`` takes
CANCEL_EVERY_S = 0.2

_CLASS = re.compile(r"<class '(?:\w+\.)*(\w+)'>")


class Complaints:
    """What one client said in its log since ``clear``.

    Attributes:
        text: the last line, those that name an error before those that do not; empty if there was none.
        errors: those that lines named, the last ones, oldest first.
    """

    _KEPT = 8

    def __init__(self) -> None:
        self.text = ""
        self.errors: list[BaseException] = []

    def clear(self) -> None:
        """Forget everything."""
        self.text = ""
        self.errors = []

    def add(self, record: logging.LogRecord) -> None:
        """Take note of a line."""
        text = _CLASS.sub(r"\1", record.getMessage())
        logger.debug("the Kafka client complains", extra={"error": text})
        error = _named(record)
        if error is not None:
            # Some errors, time-outs among them, have no words of their own.
            self.text = text if str(error) else f"{text}{type(error).__name__}"
            self.errors = [*self.errors[1 - self._KEPT :], error]
        elif not self.errors:
            self.text = text

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Take note of the client that is used within the context, and of every task that it starts there."""
        _silence()
        token = _listening.set(self)
        try:
            yield
        finally:
            _listening.reset(token)


_listening: ContextVar[Complaints | None] = ContextVar("listening", default=None)


class _Ear(logging.Handler):
    """Gives lines to whoever listens in the context that wrote them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Never fail: it is called in the middle of the client's work."""
        complaints = _listening.get()
        if complaints is None:
            logging.getLogger().handle(record)  # somebody else's client
        else:
            with suppress(Exception):
                complaints.add(record)


_EAR = _Ear(logging.WARNING)


def _silence() -> None:
    """Keep the client's lines from the process's log. May be called again."""
    foreign = logging.getLogger("aiokafka")
    if _EAR not in foreign.handlers:
        foreign.addHandler(_EAR)
        foreign.setLevel(logging.WARNING)
        foreign.propagate = False


def _named(record: logging.LogRecord) -> BaseException | None:
    """Return the error among a line's arguments: an instance, or one made of a class."""
    for argument in record.args if isinstance(record.args, tuple) else ():
        if isinstance(argument, BaseException):
            return argument
        if isinstance(argument, type) and issubclass(argument, BaseException):
            return argument()
    return record.exc_info[1] if record.exc_info else None


async def end(producer: Any) -> None:
    """End a producer within ``END_S``, started or not, whatever it has not delivered.

    Nothing more is sent of it, so that what comes next cannot be overtaken by it.
    """
    client, sender = producer.client, producer._sender.sender_task
    producer._closed = True  # or it would say that it was not closed
    if sender is not None:
        sender.cancel()
    for connection in list(client._conns.values()):
        if connection._writer is not None:
            # A transport that is closed in order waits for a peer that reads.
            connection._writer.transport.abort()
    with suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            await client.close()
            # Requests under way wait for metadata, which nobody fetches any more.
            waited_for = client._md_update_fut
            if waited_for is not None and not waited_for.done():
                waited_for.set_result(False)
            while sender is not None and not sender.done():
                await asyncio.wait([sender], timeout=CANCEL_EVERY_S)
                sender.cancel()
    if sender is not None and sender.done() and not sender.cancelled():
        sender.exception()  # seen
