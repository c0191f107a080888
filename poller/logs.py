"""Logging: text for people, JSON for programs, never a secret, and never a stalled event loop.

Every line passes one queue to one thread, so a reader of stderr that has stopped reading delays
nobody; when the queue is full, lines are dropped and counted. Redaction works on the finished line,
whatever produced it, exceptions of foreign libraries included.
"""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler, QueueListener
from typing import IO, Literal

import orjson

from poller.clock import rfc3339
from poller.metrics import Metrics
from poller.secrets import redact

QUEUE_LINES = 10_000
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _printable(text: str) -> str:
    """Escape what could forge a line or move the terminal's cursor."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        document: dict[str, object] = {
            "time": rfc3339(int(record.created * 1e9)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return redact(orjson.dumps(document, default=str).decode())


class TextFormatter(logging.Formatter):
    """One line for people: time, level, message, fields as ``key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own."""
        fields = " ".join(f"{key}={_brief(value)}" for key, value in _fields(record).items())
        time = rfc3339(int(record.created * 1e9))[11:23]
        line = _printable(
            f"{time} {record.levelname.lower():7} {record.getMessage()} {fields}".rstrip()
        ).replace("\n", "\\n")
        if record.exc_info:
            line += "\n" + _printable(self.formatException(record.exc_info))
        return redact(line)


def _brief(value: object) -> str:
    text = str(value)
    return orjson.dumps(text).decode() if not text or any(char in text for char in ' "=') else text


class _DroppingQueueHandler(QueueHandler):
    """Hands lines to the writer's thread; drops and counts them when it does not keep up."""

    def __init__(self, lines: queue.Queue[logging.LogRecord], metrics: Metrics) -> None:
        super().__init__(lines)
        self._dropped = metrics.logs_dropped

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Leave the record whole: the writer's thread formats it, in this same process."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Never wait."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped.inc()


class _Writer(QueueListener):
    """The thread that formats and writes; it does not hold up the end of the process."""

    queue: queue.Queue[logging.LogRecord]

    def stop(self) -> None:
        """Write what is queued, but give up on a reader that has stopped reading."""
        thread = self._thread
        if thread is None:
            return
        while True:
            try:
                self.queue.put_nowait(self._sentinel)  # type: ignore[attr-defined]  # not in the stub
                break
            except queue.Full:
                with suppress(queue.Empty):
                    self.queue.get_nowait()  # nobody reads: the end of the process does not wait for it
        thread.join(timeout=1.0)
        self._thread = None


def set_level(level: str) -> None:
    """Show what is at least as serious, from now on."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    # Their debug lines show headers, URLs and whole answers.
    for foreign in ("asyncio", "aiohttp"):
        logging.getLogger(foreign).setLevel(max(logging.WARNING, root.level))


@contextmanager
def logging_to(
    stream: IO[str] | None = None,
    *,
    level: str = "info",
    style: Literal["auto", "text", "json"] = "auto",
    metrics: Metrics | None = None,
) -> Iterator[None]:
    """Send every logger of this process to ``stream`` (stderr) while the context lasts.

    Args:
        stream: where lines go; ``auto`` writes text if it is a terminal.
        level: the least serious level that is shown.
        style: how lines look.
        metrics: where dropped lines are counted.
    """
    stream = stream or sys.stderr
    as_text = stream.isatty() if style == "auto" else style == "text"
    writer = logging.StreamHandler(stream)
    writer.setFormatter(TextFormatter() if as_text else JsonFormatter())
    lines: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_LINES)
    handler = _DroppingQueueHandler(lines, metrics or Metrics())
    listener = _Writer(lines, writer)
    root = logging.getLogger()
    before, before_level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    set_level(level)
    listener.start()
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(before_level)
        listener.stop()
