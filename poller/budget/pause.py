"""Pauses: how long an address must be silent, and that it stays so over restarts. Pure.

A pause is kept in two views: the wall clock, and seconds since boot together with the boot's
name. Within one boot the second decides, because it never steps; after a reboot the first, bounded
by the pause's whole length, so that a clock set back cannot prolong it without end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from poller.clock import NS_PER_S
from poller.errors import Banned, Blocked, Maintenance, Overloaded, PollError, RateLimited

DAY_S = 86_400.0
# A figure beyond any documented ban (3 days) is not believed to the letter, nor ignored.
LONGEST_S = 7 * DAY_S
SHORTEST_S = 1.0
BAN_UNKNOWN_S = 120.0  # the shortest ban documented is 2 minutes
BLOCKED_S = 300.0  # the firewall looks at five minutes
BLOCKED_LONGEST_S = 6 * 3600.0
RESTRICTED_S = 3600.0  # 451: an operator has to move the egress; look rarely whether it was done
ENDPOINT_S = 60.0  # an overloaded or closed endpoint
ENDPOINT_LONGEST_S = 600.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence on one address.

    Attributes:
        cause: kind of the error that began it.
        length_s: from its beginning to its end.
        until_ns: its end on the wall clock, nanoseconds since the epoch.
        until_uptime_s: its end in seconds since boot.
        boot_id: the boot that the uptime belongs to; empty if the system has no name for it.
    """

    cause: str
    length_s: float
    until_ns: int
    until_uptime_s: float
    boot_id: str

    def remaining_s(self, *, utc_ns: int, uptime_s: float, boot_id: str) -> float:
        """Return seconds of silence left; 0.0 when it is over."""
        if boot_id and boot_id == self.boot_id:
            left_s = self.until_uptime_s - uptime_s
        else:
            left_s = (self.until_ns - utc_ns) / NS_PER_S
        return min(max(0.0, left_s), self.length_s)

    def to_dict(self) -> dict[str, Any]:
        """Return the pause as values that JSON can hold."""
        return {field: getattr(self, field) for field in self.__slots__}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Pause:
        """Read what ``to_dict`` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            cause=str(values["cause"]),
            length_s=min(float(values["length_s"]), LONGEST_S),
            until_ns=int(values["until_ns"]),
            until_uptime_s=float(values["until_uptime_s"]),
            boot_id=str(values["boot_id"]),
        )


def pause_s(error: PollError, *, strikes: int, window_s: float, exchange_ms: float) -> float:
    """Return how many seconds of silence an error demands.

    Args:
        error: what the exchange answered; its scope is the egress or the endpoint.
        strikes: pauses since the last good answer, this one not counted: what is not named doubles.
        window_s: length of the weight window.
        exchange_ms: the exchange's clock, milliseconds since the epoch: bans name their end on it.
    """
    doubled = 2.0 ** min(max(strikes, 0), 16)
    asked_s = error.retry_after_s
    match error:
        case Banned():
            named_s = [asked_s] if asked_s is not None and asked_s > 0 else []
            if error.banned_until_ms is not None:
                named_s.append((error.banned_until_ms - exchange_ms) / 1000 + SHORTEST_S)
            length_s = max([*named_s, SHORTEST_S]) if named_s else BAN_UNKNOWN_S * doubled
        case RateLimited():
            # Zero is what this exchange often says; taken at its word it would mean a burst into the
            # same full window, and that is how a warning becomes a ban.
            length_s = asked_s if asked_s is not None and asked_s > 0 else window_s * doubled
        case Blocked(status=451):
            length_s = min(RESTRICTED_S * doubled, DAY_S)
        case Blocked():
            length_s = max(asked_s or 0.0, min(BLOCKED_S * doubled, BLOCKED_LONGEST_S))
        case Maintenance():
            # Asked after once a minute: a pause that grew would outlast it.
            length_s = asked_s or ENDPOINT_S
        case Overloaded():
            length_s = max(asked_s or 0.0, min(ENDPOINT_S * doubled, ENDPOINT_LONGEST_S))
        case _:
            length_s = min(ENDPOINT_S * doubled, ENDPOINT_LONGEST_S)
    return min(max(length_s, SHORTEST_S), LONGEST_S)
