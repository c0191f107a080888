"""The questions that clients ask in a query: read, refused when they make no sense, answered. Pure.

No message repeats what the client wrote.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, get_args

from poller.overview import AccountState, AccountSummary
from poller.server.answers import Refused

STATES: Final[tuple[str, ...]] = get_args(AccountState)
MOST_ACCOUNTS: Final = 5_000
DEFAULT_ACCOUNTS: Final = 500
MOST_CHARACTERS: Final = 200
WEEK_S: Final = 604_800.0
MOST_SINCE_S: Final = 10 * 366 * 86_400.0

_Key = Callable[[AccountSummary], float | str | Decimal | None]
_STATE_ORDER: Final = {state: place for place, state in enumerate(("quarantined", "keyless", "stale", "ok"))}
# What an account can be sorted by. What is not known comes last, in both directions.
SORTS: Final[Mapping[str, _Key]] = {
    "name": lambda account: account.account,
    "state": lambda account: _STATE_ORDER[account.state],
    "egress": lambda account: account.egress,
    "priority": lambda account: account.priority,
    "interval": lambda account: account.interval_s * account.stretch,
    "lateness": lambda account: account.lateness_s,
    "due": lambda account: account.next_due_s,
    "value": lambda account: None if account.total_btc is None else Decimal(account.total_btc),
    "assets": lambda account: account.assets,
    "failures": lambda account: account.failures,
}
AGE: Final = "age"  # of the last good answer; the one that never came is the oldest

Fields = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class AccountQuery:
    """Which accounts, in which order.

    Attributes:
        labels: pairs that an account must have.
        text: part of its name or of a label, in lower case.
        sort: one of ``SORTS`` or ``AGE``; empty for the configuration's order.
    """

    state: str = ""
    egress: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    sort: str = ""
    is_descending: bool = False
    limit: int = DEFAULT_ACCOUNTS
    offset: int = 0


def read_account_query(fields: Fields) -> AccountQuery:
    """Return what a client wants to know of accounts.

    Raises:
        Refused: it makes no sense.
    """
    check_names(fields, ("state", "egress", "label", "q", "sort", "limit", "offset"))
    state = one(fields, "state")
    if state and state not in STATES:
        raise Refused(400, f"state: write one of {', '.join(STATES)}")
    labels = {}
    for pair in fields.get("label", ()):
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise Refused(400, "label: write label=NAME=TEXT")
        labels[name] = value
    sort = one(fields, "sort")
    if sort.removeprefix("-") not in {*SORTS, AGE, ""} or sort == "-":
        raise Refused(
            400, f"sort: write one of {', '.join([*SORTS, AGE])}, with a '-' before it for descending"
        )
    return AccountQuery(
        state=state,
        egress=one(fields, "egress"),
        labels=labels,
        text=one(fields, "q").lower(),
        sort=sort.removeprefix("-"),
        is_descending=sort.startswith("-"),
        limit=whole(fields, "limit", DEFAULT_ACCOUNTS, 1, MOST_ACCOUNTS),
        offset=whole(fields, "offset", 0, 0, 10**9),
    )


def select(
    accounts: Iterable[AccountSummary], names: Sequence[str], query: AccountQuery
) -> tuple[int, Sequence[AccountSummary]]:
    """Return how many accounts match, and those of them that are asked for.

    ``names`` is the configuration's order.
    """
    matching = [account for account in accounts if _matches(account, query)]
    place = {name: index for index, name in enumerate(names)}
    # Sorting keeps the order of what is equal: first the configuration's, or the page would jump.
    matching.sort(key=lambda account: place.get(account.account, len(place)))
    if query.sort == AGE:
        # RFC 3339 in UTC sorts as text; the latest answer is the youngest.
        matching.sort(key=lambda account: account.good_at or "", reverse=not query.is_descending)
    elif query.sort:
        key = SORTS[query.sort]
        known = [(value, account) for account in matching if (value := key(account)) is not None]
        known.sort(key=lambda pair: pair[0], reverse=query.is_descending)
        unknown = [account for account in matching if key(account) is None]
        matching = [account for _, account in known] + unknown
    return len(matching), matching[query.offset : query.offset + query.limit]


def _matches(account: AccountSummary, query: AccountQuery) -> bool:
    if query.state and account.state != query.state:
        return False
    if query.egress and account.egress != query.egress:
        return False
    if any(account.labels.get(name) != value for name, value in query.labels.items()):
        return False
    if not query.text or query.text in account.account.lower():
        return True
    return any(query.text in text.lower() for pair in account.labels.items() for text in pair)


def check_names(fields: Fields, known: Sequence[str]) -> None:
    """Refuse parameters that mean nothing here, or are too long to mean anything."""
    if not fields.keys() <= set(known):
        raise Refused(400, f"unknown parameter; known here: {', '.join(known) or 'none'}")
    for name, values in fields.items():
        if any(len(value) > MOST_CHARACTERS for value in values):
            raise Refused(400, f"{name}: at most {MOST_CHARACTERS} characters")


def one(fields: Fields, name: str) -> str:
    """Return a parameter that may be given once; empty if it is not."""
    values = fields.get(name, ())
    if len(values) > 1:
        raise Refused(400, f"{name}: write it once")
    return values[0] if values else ""


def whole(fields: Fields, name: str, default: int, least: int, most: int) -> int:
    """Return a parameter that is a whole number within bounds, both included."""
    text = one(fields, name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most):
        raise Refused(400, f"{name}: write a whole number from {least} to {most}")
    return int(text)


def since_s(fields: Fields) -> float:
    """Return how many seconds a history is to go back."""
    text = one(fields, "since_s")
    try:
        seconds = float(text) if text else WEEK_S
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MOST_SINCE_S:
        raise Refused(400, f"since_s: write a number of seconds, more than 0 and at most {MOST_SINCE_S:.0f}")
    return seconds
