"""Say in sentences how an account stands, and why its balances may be old. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from poller.overview import AccountSummary, EgressSeen, SinkSeen
from poller.units import span

_PAUSES = {
    "rate_limited": "the exchange says that this address has used up its weight (429)",
    "banned": "the exchange has banned this address (418)",
    "blocked": "the exchange's firewall, or its terms, keep this address out",
    "maintenance": "the exchange is under maintenance",
    "overloaded": "the exchange sheds load",
    "access_denied": "most keys of this address are refused alike, so it is not the keys",
    "bad_request": "the exchange calls our requests wrong",
}
LATE_S = 1.0


def pause_in_words(cause: str) -> str:
    """Return what the kind of error that began a pause means."""
    return _PAUSES.get(cause, cause.replace("_", " "))


def explain(
    account: AccountSummary,
    egress: EgressSeen,
    behind: Sequence[SinkSeen],
    *,
    good_age_s: float | None,
    is_polling: bool,
    is_full: bool,
) -> list[str]:
    """Return how an account stands, the most important first; never nothing.

    Args:
        account: it.
        egress: the address that it is polled from.
        behind: sinks that may not have got its last record yet.
        good_age_s: since its last good answer; ``None`` if there was none since the start.
        is_polling: a poll of it is under way.
        is_full: the outbox accepts nothing.
    """
    return [
        _state(account, good_age_s),
        *_failures(account),
        *_pause(egress),
        *_weight(account, egress),
        *(["Nothing is accepted: the outbox is full, so nobody is polled."] if is_full else []),
        *_next(account, is_polling=is_polling),
        *(_behind(sink) for sink in behind),
    ]


def _state(account: AccountSummary, good_age_s: float | None) -> str:
    good = (
        "It has not answered well since the start."
        if good_age_s is None
        else f"Its last good answer is {span(good_age_s)} old; it is asked every {span(account.interval_s)}."
    )
    match account.state:
        case "keyless":
            return f"It is not polled: {account.reason or 'its key cannot be read'}. That is tried again by itself."
        case "quarantined":
            return f"It is quarantined: {account.reason or 'its key is refused'}. It is asked rarely until that ends. {good}"
        case "stale":
            return f"It is stale: {account.reason or 'it has not answered well for too long'}. {good}"
        case _:
            return good


def _failures(account: AccountSummary) -> Iterator[str]:
    if account.failures:
        polls = "poll" if account.failures == 1 else f"{account.failures} polls"
        said = (account.error or account.error_kind).removesuffix(".")  # the exchange's own words may end so
        yield f"Its last {polls} failed: {said}."


def _pause(egress: EgressSeen) -> Iterator[str]:
    if egress.pause_s > 0:
        yield (
            f"Every request from egress {egress.egress} pauses for {span(egress.pause_s)} more: "
            f"{pause_in_words(egress.pause_cause)}."
        )


def _weight(account: AccountSummary, egress: EgressSeen) -> Iterator[str]:
    if account.stretch > 1.005:
        yield (
            f"Intervals of priority {account.priority} take {account.stretch:.2f} times as long as configured: "
            f"the fleet wants more weight than egress {egress.egress} has."
        )
    if egress.foreign and egress.capacity < egress.allowed:
        yield (
            f"Somebody else uses {egress.foreign} of the weight of egress {egress.egress}; "
            f"{egress.capacity} of {egress.allowed} are left to us."
        )


def _next(account: AccountSummary, *, is_polling: bool) -> Iterator[str]:
    if is_polling:
        yield "A poll of it is under way."
    elif account.next_due_s is None:
        if account.state != "keyless":
            yield "No poll of it is planned: its key has to be checked first, or is forbidden by the policy."
    elif account.next_due_s < 0:
        yield f"It has been due for {span(-account.next_due_s)} and waits for its turn."
    else:
        yield f"Its next poll is due in {span(account.next_due_s)}."
    if account.lateness_s is not None and account.lateness_s >= LATE_S:
        yield f"Its last poll went {span(account.lateness_s)} late."


def _behind(sink: SinkSeen) -> str:
    text = f"Sink {sink.sink} may not have its last record yet: {sink.backlog} wait"
    if sink.lag_s:
        text += f", the oldest for {span(sink.lag_s)}"
    if sink.error:
        text += f"; it fails for {span(sink.failing_s)}: {sink.error}"
    return text + "."
