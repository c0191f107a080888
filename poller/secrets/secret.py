"""The type of a secret, which never shows itself."""

from __future__ import annotations

from poller.secrets.redaction import HIDDEN, remember


class Secret:
    """A text that must not be seen. Only ``reveal`` shows it; ``repr``, ``str`` and formatting do not.

    Compares by value (so that one key under two names is found), in constant time is not needed:
    both sides are our own. From its creation on, ``redact`` hides it.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        remember(text)

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
