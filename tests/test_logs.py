"""Log lines: for people, for programs, without secrets, and never a stalled loop."""

from __future__ import annotations

import io
import json
import logging
import os
import threading

import pytest

from poller import logs
from poller.logs import logging_to, set_level
from poller.metrics import Metrics
from poller.secrets import Secret

pytestmark = pytest.mark.real_time

logger = logging.getLogger("poller.test")


def written(style: str, emit: object, *, level: str = "info") -> str:
    stream = io.StringIO()
    with logging_to(stream, style=style, level=level):  # type: ignore[arg-type]  # one of the three
        emit()  # type: ignore[operator]  # a function
    return stream.getvalue()


def test_json_has_stable_fields_and_the_events_own() -> None:
    line = written(
        "json", lambda: logger.warning("account is stale", extra={"account": "alice", "silent_s": 30})
    )
    document = json.loads(line)
    assert document.pop("time").endswith("Z")
    assert document == {
        "level": "warning",
        "logger": "poller.test",
        "message": "account is stale",
        "account": "alice",
        "silent_s": 30,
    }


def test_text_is_one_line_with_fields() -> None:
    line = written("text", lambda: logger.info("sink is back", extra={"sink": "bus", "after": "2 min"}))
    assert line[12:] == ' info    sink is back sink=bus after="2 min"\n'


def test_a_hostile_text_cannot_forge_a_line_or_move_the_cursor() -> None:
    for style in ("text", "json"):
        lines = written(
            style, lambda: logger.info("asset", extra={"asset": "X\n12:00 error all is lost\x1b[2J"})
        )
        assert lines.count("\n") == 1
        assert "\x1b" not in lines


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_secret_is_redacted_wherever_it_stands(style: str) -> None:
    secret = Secret("cAnArY0123456789cAnArY0123456789")

    def emit() -> None:
        logger.warning(
            "refused %s", secret.reveal(), extra={"url": f"/x?signature={'a' * 64}", "raw": secret}
        )
        try:
            int(secret.reveal())
        except ValueError:
            logger.exception("failed")

    text = written(style, emit)
    assert secret.reveal() not in text
    assert "a" * 64 not in text
    assert "ValueError" in text


def test_a_reader_that_stopped_reading_stalls_nobody_and_drops_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "QUEUE_LINES", 50)
    read_end, write_end = os.pipe()
    metrics = Metrics()
    done = threading.Event()

    def log_much() -> None:
        for number in range(5000):  # far more than a pipe's 64 KiB and the queue hold
            logger.info("line %d %s", number, "x" * 200)
        done.set()

    with os.fdopen(write_end, "w") as stream, logging_to(stream, style="json", metrics=metrics):
        threading.Thread(target=log_much, daemon=True).start()
        assert done.wait(timeout=30), "logging waits for the reader"
        assert metrics.value("logs_dropped_total") > 0
        reader = threading.Thread(target=_drain, args=[read_end], daemon=True)
        reader.start()
    reader.join(timeout=30)
    os.close(read_end)


def _drain(read_end: int) -> None:
    while os.read(read_end, 65_536):
        pass


def test_levels_below_the_wanted_one_are_not_written() -> None:
    assert written("text", lambda: logger.info("x"), level="warning") == ""


def test_other_libraries_debug_lines_are_kept_out() -> None:
    assert written("text", lambda: logging.getLogger("aiohttp.client").debug("headers"), level="debug") == ""


def test_another_level_counts_from_then_on_and_for_other_libraries_too() -> None:
    def change() -> None:
        set_level("debug")
        logger.debug("shown")
        logging.getLogger("aiohttp.client").info("headers")
        set_level("error")
        logger.warning("hidden")

    lines = written("text", change, level="info")
    assert "shown" in lines
    assert "headers" not in lines
    assert "hidden" not in lines
