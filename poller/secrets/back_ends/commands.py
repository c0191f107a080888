"""The back end ``exec:COMMAND``: what a command prints, such as a password manager's."""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final

from poller.clock import Clock, SystemClock
from poller.secrets.back_ends import BackEnd
from poller.secrets.errors import SecretUnavailable, SecretUnreadable
from poller.secrets.redaction import HIDDEN, redact
from poller.secrets.secret import Secret

TIME_LIMIT_S: Final = 10.0
MAX_BYTES: Final = 64 * 1024
AT_ONCE: Final = 8
SHOWN: Final = 200  # characters of what a command says on stderr
# Exit codes that mean "not now" by an old convention (sysexits.h).
_NOT_NOW: Final = frozenset({os.EX_UNAVAILABLE, os.EX_TEMPFAIL})
_CHUNK_BYTES: Final = 16 * 1024


class CommandBackEnd(BackEnd):
    """Runs commands without a shell, in our environment, with nothing to read.

    After as many time-outs of one program in a row as run at once, it is not run again in this round.
    """

    form: ClassVar[str] = "exec:COMMAND"
    wants: ClassVar[str] = "a command and its arguments"
    at_once: ClassVar[int] = AT_ONCE
    takes_words: ClassVar[bool] = True

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._timed_out: Counter[str] = Counter()
        self._lock = threading.Lock()

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Tell whether the text splits into words as a shell would split it."""
        try:
            words = shlex.split(name)
        except ValueError:
            return False
        return bool(words) and bool(words[0].strip()) and name.isprintable() and name == name.strip()

    def read(self, name: str, directory: Path) -> str:
        """Return what the command printed, run in ``directory``."""
        words = shlex.split(name)
        shown = f"the command {words[0]!r}"
        too_slow = SecretUnavailable(
            f"{shown} did not end within {TIME_LIMIT_S:g} s",
            "run it by hand: it must not ask anybody anything",
        )
        if self._timed_out[words[0]] >= AT_ONCE:
            raise too_slow
        program = _program(words[0], directory)
        if program is None:
            raise SecretUnreadable(f"there is no program {words[0]!r}", "install it, or write its whole path")
        try:
            code, output, complaint = _run([program, *words[1:]], directory, self._clock)
        except TimeoutError:
            with self._lock:
                self._timed_out[words[0]] += 1
            raise too_slow from None
        except OSError as error:
            raise SecretUnreadable(f"{shown} cannot be run: {error.strerror}") from None
        with self._lock:
            self._timed_out[words[0]] = 0
        return _judged(shown, code, output, complaint)


def _program(word: str, directory: Path) -> str | None:
    """Find a program: by its path, relative to the directory, or by its name in PATH."""
    if "/" in word:
        path = directory / word
        return str(path) if path.is_file() else None
    return shutil.which(word)


def _judged(shown: str, code: int, output: bytes, complaint: bytes) -> str:
    if len(output) > MAX_BYTES:
        raise SecretUnreadable(f"{shown} printed more than {MAX_BYTES} bytes: that is no secret")
    text = output.decode(errors="replace")
    if code != 0:
        said = _said(complaint, text)
        if code < 0:
            raise SecretUnavailable(f"{shown} was ended by signal {-code}{said}")
        if code in _NOT_NOW:
            raise SecretUnavailable(f"{shown} cannot do it now (exit code {code}){said}")
        raise SecretUnreadable(f"{shown} failed with exit code {code}{said}", "run it by hand")
    if not text.strip():
        raise SecretUnreadable(f"{shown} printed nothing")
    try:
        return output.decode()
    except UnicodeDecodeError:
        raise SecretUnreadable(f"{shown} printed what is not UTF-8 text") from None


def _said(complaint: bytes, printed: str) -> str:
    """Return the first line of a complaint, for messages, without what was printed before it failed.

    That may be a secret, or half of one: its words are hidden from now on, its sentences here, for to hide
    those for ever would spoil the log.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    for line in lines:
        if not any(map(str.isspace, line)):
            Secret(line)
    for said in complaint.decode(errors="replace").splitlines():
        if shown := "".join(sign for sign in said if sign.isprintable()).strip():
            for line in sorted(lines, key=len, reverse=True):
                shown = shown.replace(line, HIDDEN) if len(line) > 3 else shown
            return f": {redact(shown)[:SHOWN]}"
    return ""


def _run(words: list[str], directory: Path, clock: Clock) -> tuple[int, bytes, bytes]:
    """Run a command; return its exit code (negative: the signal that ended it), output and complaints.

    Raises:
        TimeoutError: it did not end in time, and was killed with all that it started.
        OSError: it cannot be run.
    """
    deadline_s = clock.monotonic_s() + TIME_LIMIT_S
    process = subprocess.Popen(  # noqa: S603  # the operator's own command, and no shell
        words,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a group to kill, and no terminal on which somebody could be asked
    )
    with process:
        try:
            output, complaint = _collect(process, deadline_s, clock)
            if len(output) > MAX_BYTES:
                _kill(process)
            code = process.wait(timeout=max(0.0, deadline_s - clock.monotonic_s()))
        except (TimeoutError, subprocess.TimeoutExpired):
            _kill(process)
            raise TimeoutError from None
        except BaseException:
            _kill(process)
            raise
    return code, output, complaint


def _collect(process: subprocess.Popen[bytes], deadline_s: float, clock: Clock) -> tuple[bytes, bytes]:
    """Read what the command prints until it ends; of complaints, and of too much output, the beginning only.

    Until it ends, and not until its pipes do: a process that it leaves behind may hold those open.
    """
    assert process.stdout is not None  # noqa: S101  # asked for
    assert process.stderr is not None  # noqa: S101
    output, complaint = bytearray(), bytearray()
    pipes = {process.stdout.fileno(): output, process.stderr.fileno(): complaint}
    with selectors.DefaultSelector() as selector, _end_of(process) as end:
        for pipe in pipes:
            os.set_blocking(pipe, False)
        for handle in (*pipes, *end):
            selector.register(handle, selectors.EVENT_READ)
        over = False
        while pipes and not over and len(output) <= MAX_BYTES:
            left_s = deadline_s - clock.monotonic_s()
            ready = [key.fd for key, _ in selector.select(left_s)] if left_s > 0 else []
            if not ready:
                raise TimeoutError
            over = any(handle in end for handle in ready)
            for pipe in list(pipes):
                if _drain(pipe, pipes[pipe]):
                    selector.unregister(pipe)
                    del pipes[pipe]
    return bytes(output), bytes(complaint)


@contextmanager
def _end_of(process: subprocess.Popen[bytes]) -> Iterator[tuple[int, ...]]:
    """Give a handle that becomes readable when the process ends, on systems that have such handles."""
    try:
        handle = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        yield ()
        return
    try:
        yield (handle,)
    finally:
        os.close(handle)


def _drain(pipe: int, content: bytearray) -> bool:
    """Take what is in the pipe, and keep no more of it than is looked at. Tell whether it was closed."""
    while True:
        try:
            chunk = os.read(pipe, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        content += chunk[: MAX_BYTES + 1 - len(content)]
        if not chunk:
            return True
        if len(content) > MAX_BYTES:
            return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
