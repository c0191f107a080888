"""The keyboard of a terminal, key by key: without echo and line editing while a context lasts."""

from __future__ import annotations

import codecs
import re
import termios
import tty
from typing import Any, Self

# What terminals send in either of their two modes.
_SEQUENCES = {
    "A": "up",
    "B": "down",
    "H": "home",
    "F": "end",
    "1~": "home",
    "4~": "end",
    "5~": "page up",
    "6~": "page down",
    "7~": "home",
    "8~": "end",
}
_SEQUENCE = re.compile(r"\x1b(?:\[|O)([0-9;]*[A-Za-z~])")
_BEGUN = re.compile(r"\x1b(?:(?:\[|O)[0-9;]*)?")
_CONTROLS = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x15": "clear",
    "\x1b": "escape",
}


class Keyboard:
    """Switches a terminal to single keys, and back however the context ends.

    Ctrl-C and Ctrl-Z stay signals. ``leave`` and ``enter`` give the terminal back for a while.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] = termios.tcgetattr(fd)

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def enter(self) -> None:
        """Take the terminal."""
        tty.setcbreak(self._fd, termios.TCSADRAIN)

    def leave(self) -> None:
        """Put the terminal back as it was; keys that nobody read are dropped, or the shell would get them."""
        termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)


class Keys:
    """Turns what a terminal sends into keys: printable characters as they are, others by name.

    A sequence may arrive in parts, and the escape key sends the beginning of all of them: what ``feed`` left
    open is a key of its own if nothing follows soon; ``flush`` then returns it.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        self._open = ""

    @property
    def is_open(self) -> bool:
        """Whether a sequence has begun and not ended."""
        return bool(self._open)

    def feed(self, sent: bytes) -> list[str]:
        """Return the keys that are complete."""
        text = self._open + self._decoder.decode(sent)
        self._open = ""
        keys: list[str] = []
        at = 0
        while at < len(text):
            if match := _SEQUENCE.match(text, at):
                keys += [_SEQUENCES[match[1]]] if match[1] in _SEQUENCES else []
                at = match.end()
            elif (begun := _BEGUN.match(text, at)) and begun.end() == len(text):
                self._open = text[at:]
                break
            else:
                keys += _key(text[at])
                at += 1
        return keys

    def flush(self) -> list[str]:
        """Return what is open as keys: nothing followed."""
        left, self._open = self._open, ""
        return ["escape"] if left else []


def _key(char: str) -> list[str]:
    if char in _CONTROLS:
        return [_CONTROLS[char]]
    return [char] if char.isprintable() else []
