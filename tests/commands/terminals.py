"""A command in a terminal of its own: a pseudo-terminal that it controls, with keys, sizes and signals."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.end_to_end.processes import PATIENCE_S

# Takes the terminal as its own, as a login does, and becomes the command.
START = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs ``python -m poller`` (or other arguments of Python) until the context ends."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        size: tuple[int, int] = (80, 24),
        module: tuple[str, ...] = ("-m", "poller"),
        **environment: str,
    ) -> None:
        self._master, self._slave = os.openpty()
        self.resize(*size, tell=False)
        self.before = self.modes()
        self.output = ""  # since it was last waited for something
        self.everything = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, sys.executable, *module, *arguments],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            cwd=cwd,
            env={
                **{
                    name: value
                    for name, value in os.environ.items()
                    if name not in {"COLUMNS", "LINES", "NO_COLOR"}
                },
                "TERM": "xterm-256color",
                "PYTHONPATH": str(Path(__file__).parents[2]),
                **environment,
            },
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        for fd in (self._master, self._slave):
            with contextlib.suppress(OSError):
                os.close(fd)

    def modes(self) -> list[Any]:
        """How the terminal is set."""
        return termios.tcgetattr(self._slave)

    def resize(self, columns: int, lines: int, *, tell: bool = True) -> None:
        """Give the terminal another size; the kernel tells the command."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read(self) -> None:
        """Take what was drawn since."""
        while select.select([self._master], [], [], 0.02)[0]:
            drawn = os.read(self._master, 65536).decode(errors="replace")
            self.output += drawn
            self.everything += drawn

    def text(self) -> str:
        """What was drawn, without control sequences."""
        return _CONTROL.sub("", self.output).replace("\r", "")

    def wait_for(self, text: str | Callable[[], object]) -> None:
        """Wait until something is drawn, or so; then forget what was drawn before."""
        deadline = time.monotonic() + PATIENCE_S
        found = text if callable(text) else lambda: text in self.text()
        while True:
            self.read()
            if found():
                break
            assert time.monotonic() < deadline, f"{text} did not come: {self.text()[-3000:]}"
        self.output = ""

    def end(self) -> int:
        """Wait for the command's end; return its exit code, negative for a signal."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            self.read()  # nobody can end while what is drawn is not taken
            assert time.monotonic() < deadline, self.text()[-3000:]
        self.read()
        return self.process.returncode
