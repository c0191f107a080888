"""Secrets: the type that never shows itself, the references that name where one is kept, redaction."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"

# Whatever may be part of a key, a signature, a password, in any usual encoding.
_WORD = re.compile(r"[A-Za-z0-9_\-+/=%.~]{6,}")
_SIGNATURE = re.compile(r"(signature=)[^&\s\"']+", re.IGNORECASE)

_known: set[str] = set()


class Secret:
    """A text that must not be seen. Only ``reveal`` shows it; ``repr``, ``str`` and formatting do not.

    Compares by value (so that one key under two names is found), in constant time is not needed:
    both sides are our own.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        _known.update(word for word in _WORD.findall(text))

    def reveal(self) -> str:
        """Return the text. Call it where it is used, at the last moment, and keep no copy."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({HIDDEN!r})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


def redact(text: str) -> str:
    """Return the text without any secret this process has read, and without signatures.

    The last line of defence, applied to every formatted log line; its cost does not grow with the
    number of secrets.
    """
    text = _SIGNATURE.sub(rf"\g<1>{HIDDEN}", text)
    if not _known:
        return text
    return _WORD.sub(lambda match: HIDDEN if match.group() in _known else match.group(), text)
