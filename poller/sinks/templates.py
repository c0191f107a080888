"""Names of streams, subjects, topics and tables with fields of the record in them: ``balances.{account}``.

A name decides where a record goes, so nothing that stands in a record may decide more than its own
place in it: no dot, slash, wildcard, quote or space gets in. Account, kind, reason and date have none.
Labels are free text: there every character but letters, digits, ``_`` and ``-`` becomes ``_``, and so
does a label that an account does not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from poller.model import Kind, Record

FIELDS: Final = ("account", "kind", "reason", "date", "labels.NAME")

_FIELD = re.compile(r"\{([^{}]*)\}")
_LABEL = re.compile(r"labels\.([A-Za-z0-9_-]{1,64})")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)
_LONGEST_CHARACTERS = 64  # of a label, as it gets into a name


class Template:
    """A name with fields of the record in it. As an option's type it is written as a text.

    Raises:
        ValueError: a field that does not exist, or a stray brace; the text says what can be written.
    """

    __slots__ = ("_parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        pieces = _FIELD.split(text)
        if stray := next((piece for piece in pieces[::2] if "{" in piece or "}" in piece), None):
            raise ValueError(f"a brace without its counterpart in {stray!r}; write {_written()}")
        # Literal texts and what is asked of the record take turns.
        self._parts: list[str | Callable[[Record], str]] = [
            _asked(piece) if number % 2 else piece for number, piece in enumerate(pieces)
        ]

    @property
    def literals(self) -> str:
        """Everything that does not come out of records."""
        return "".join(part for part in self._parts if isinstance(part, str))

    @property
    def fields(self) -> list[str]:
        """The fields in it, in their order, without braces."""
        return _FIELD.findall(self.text)

    def render(self, record: Record) -> str:
        """Return the record's name."""
        return "".join(part if isinstance(part, str) else part(record) for part in self._parts)

    def example(self) -> str:
        """Return a name of the longest kind that can come of it: for checks of length."""
        return "".join(part if isinstance(part, str) else "x" * _LONGEST_CHARACTERS for part in self._parts)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from_text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=1))
        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), from_text], mode="left_to_right"
        )


def spelled(allowed: str, what: str, *, longest_bytes: int) -> Callable[[Template], Template]:
    """Return a check, for an option's type, of what a name may be made of.

    Args:
        allowed: a regular expression for what stands outside of fields.
        what: the name of such a name, for messages: ``a subject``.
        longest_bytes: of the whole name, fields at their longest included.
    """
    pattern = re.compile(allowed)

    def check(template: Template) -> Template:
        if not pattern.fullmatch(template.literals):
            raise ValueError(f"{template.text!r} cannot be {what}")
        if (longest := len(template.example().encode())) > longest_bytes:
            raise ValueError(f"{what} can have {longest_bytes} bytes; {template.text!r} may have {longest}")
        return template

    return check


def _written() -> str:
    return ", ".join(f"{{{field}}}" for field in FIELDS)


def _asked(field: str) -> Callable[[Record], str]:
    if label := _LABEL.fullmatch(field):
        name = label[1]
        return lambda record: _safe(record.document["labels"].get(name, ""))
    match field:
        case "account":
            return lambda record: _safe(record.account)
        case "kind":
            return lambda record: record.kind.value
        case "reason":
            return lambda record: _safe(record.reason)
        case "date":
            return _date
    raise ValueError(f"there is no field {{{field}}}; write {_written()}")


def _date(record: Record) -> str:
    instant: str = record.document["observed_at" if record.kind is Kind.SNAPSHOT else "since"]
    return _safe(instant[:10])


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text[:_LONGEST_CHARACTERS]) or "_"
