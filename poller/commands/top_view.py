"""What ``poller top`` knows and shows: the daemon's answers put together, and what keys do. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from poller.commands.fleet_screen import Document, badness

SORTS: Final = ("worst", "name", "late", "value")
KEPT_HAPPENINGS: Final = 200
LONGEST_FILTER: Final = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """An account's summary, and when it was written, by the daemon's clock."""

    account: Document
    at: str


@dataclass(frozen=True, slots=True)
class Layout:
    """How many lines each part of the screen gets."""

    checks: int
    egress: int
    sinks: int
    accounts: int
    feed: int


@dataclass(slots=True)
class View:
    """The state of the screen.

    Attributes:
        whole: the last answer of ``fleet.status``; ``None`` before the first.
        number, happened: what to ask for accounts and happenings with the next time.
        waiting: why the daemon does not answer; empty if it does.
        sort: one of ``SORTS``.
        search: what accounts are looked for with; empty shows all.
        is_typing: keys go into ``search``.
        first: index of the first account that is shown.
    """

    whole: Mapping[str, Any] | None = None
    accounts: dict[str, Seen] = field(default_factory=dict)
    number: int = 0
    happened: int = 0
    happenings: deque[Document] = field(default_factory=lambda: deque(maxlen=KEPT_HAPPENINGS))
    waiting: str = ""
    sort: str = SORTS[0]
    search: str = ""
    is_typing: bool = False
    first: int = 0

    # The daemon's answers ------------------------------------------------------------------------

    def take_status(self, whole: Mapping[str, Any]) -> None:
        """Take the answer of ``fleet.status``. A daemon that started anew counts anew: the rest is forgotten."""
        if self.whole is not None and self.whole["status"]["started_at"] != whole["status"]["started_at"]:
            self.accounts.clear()
            self.happenings.clear()
            self.number = self.happened = 0
        self.whole = whole
        self.waiting = ""

    def take_accounts(self, answer: Mapping[str, Any]) -> None:
        """Take the answer of ``fleet.accounts``: those that changed, and the names of all."""
        known = {**self.accounts, **{one["account"]: Seen(one, answer["at"]) for one in answer["accounts"]}}
        self.accounts = {name: known[name] for name in answer["names"] if name in known}
        self.number = answer["number"]

    def take_happenings(self, answer: Sequence[Document]) -> None:
        """Take the answer of ``fleet.happenings``."""
        self.happenings.extend(answer)
        if answer:
            self.happened = answer[-1]["number"]

    # What is shown -------------------------------------------------------------------------------

    def chosen(self) -> list[Seen]:
        """Return the accounts that the search leaves, in order."""
        wanted = self.search.casefold()
        found = [seen for seen in self.accounts.values() if not wanted or wanted in _words(seen.account)]
        found.sort(key=lambda seen: str(seen.account["account"]))
        if self.whole is None:
            return found
        status = self.whole["status"]
        match self.sort:
            case "worst":
                found.sort(key=lambda seen: badness(seen.account, status))
            case "late":
                found.sort(key=lambda seen: seen.account["lateness_s"] or 0.0, reverse=True)
            case "value":
                found.sort(key=lambda seen: Decimal(seen.account["total_btc"] or -1), reverse=True)
        return found

    def layout(self, height: int) -> Layout:
        """Divide the lines: two of the header, one above each list, and the last for the keys."""
        if self.whole is None:
            return Layout(0, 0, 0, max(0, height - 2), 0)
        checks = min(2, sum(not check["ok"] for check in self.whole["status"]["ready"]))
        most = max(1, (height - 10) // 5)
        egress, sinks = (min(most, len(self.whole[part])) for part in ("egress", "sinks"))
        left = height - 3 - checks - egress - sinks
        feed = max(0, min(left // 3, 12)) if left >= 8 else 0
        return Layout(checks, egress, sinks, max(0, left - feed), feed)

    # Keys ----------------------------------------------------------------------------------------

    def press(self, key: str, height: int) -> bool:
        """Do what a key means on a screen of so many lines; return whether to go on."""
        if self.is_typing:
            self._type(key)
            return True
        page = max(1, self.layout(height).accounts - 1)
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page, " ": page}
        if key in steps:
            self._scroll(self.first + steps[key], page)
        elif key == "home":
            self.first = 0
        elif key == "end":
            self._scroll(len(self.accounts), page)
        elif key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
            self.first = 0
        elif key == "/":
            self.is_typing = True
        elif key == "escape":
            self.search, self.first = "", 0
        return key != "q"

    def _scroll(self, to: int, page: int) -> None:
        self.first = max(0, min(to, len(self.chosen()) - page))

    def _type(self, key: str) -> None:
        if key in {"enter", "escape"}:
            self.is_typing = False
        if key in {"escape", "clear"}:
            self.search = ""
        elif key == "backspace":
            self.search = self.search[:-1]
        elif len(key) == 1:
            self.search = (self.search + key)[:LONGEST_FILTER]
        self.first = 0


def _words(account: Document) -> str:
    labels = " ".join(f"{name}={value}" for name, value in account["labels"].items())
    return f"{account['account']} {account['state']} {account['egress']} {labels} {account['error_kind']}".casefold()
