"""What the exchange really charges and allows, where that is less kind than what is configured. Pure.

Both are learned in one direction only: a weight can turn out heavier, a limit lower. The other way would
mean to overspend on the word of a header.
"""

from __future__ import annotations

from collections import deque

# Steps between lone answers that must be the same before another weight is believed. Whoever else uses
# the address adds to some of them, by chance to a few alike; until then the difference counts as theirs,
# which is as safe.
ALIKE = 50
NEAR_S = 0.5  # two answers further apart may have anything between them
AGREE_PART = 0.1  # two 429s within this show the same limit
LOWEST_PART = 0.1  # of the configured limit: below that a 429 was about something else


class Terms:
    """The limit of a window and the weight of a request, as configured or as learned.

    Args:
        limit: weight per window and address, as configured.
    """

    def __init__(self, limit: int) -> None:
        self.configured = limit
        self.limit = limit
        self._shown: int | None = None  # by the last 429
        self._heavier: dict[int, int] = {}  # configured weight -> what is charged for it
        self._steps: dict[int, deque[int]] = {}
        self._last: tuple[int, float, int] | None = None  # number, when, and figure of the last lone answer

    def charged(self, weight: int) -> int:
        """Return what a request of that weight costs, as far as we know."""
        return self._heavier.get(weight, weight)

    def answered(
        self, weight: int, used_weight: int, *, number: int, granted_s: float, now_s: float, alone: bool
    ) -> int | None:
        """Note an answer's figure; return what is really charged if this is what convinced us.

        A heavier weight that was believed is corrected the same way, down to the documented one.

        Args:
            weight: of the request, as configured.
            used_weight: the exchange's count in its answer.
            number: of its grant: the next one follows without another between.
            granted_s: when it was granted.
            now_s: when it was answered.
            alone: no other request was under way.
        """
        last, self._last = self._last, (number, now_s, used_weight) if alone else None
        if not alone or last is None:
            return None
        last_number, last_s, last_used = last
        follows = number == last_number + 1 and granted_s >= last_s and now_s - last_s <= NEAR_S
        step = used_weight - last_used
        if not follows or step <= 0:  # others were between, or a window turned
            return None
        steps = self._steps.setdefault(weight, deque(maxlen=ALIKE))
        if steps and steps[-1] != step:
            steps.clear()
        steps.append(step)
        if len(steps) < ALIKE or max(step, weight) == self.charged(weight):
            return None
        self._heavier[weight] = max(step, weight)
        return self._heavier[weight]

    def limited(self, used_weight: int | None, weight: int) -> int | None:
        """Note a 429 and the count in it; return the lower limit once two of them agree on it.

        One alone may be about something else that this address has too much of.
        """
        if used_weight is None or used_weight < self.configured * LOWEST_PART:
            return None
        # The request that was refused is in the figure.
        shown = max(used_weight - weight, 1)
        before, self._shown = self._shown, shown
        if before is None or abs(shown - before) > AGREE_PART * shown or max(shown, before) >= self.limit:
            return None
        self.limit = max(shown, before)
        return self.limit

    def reconfigure(self, limit: int) -> None:
        """Take another configured limit as the truth, until a 429 shows a lower one."""
        if limit != self.configured:
            self.configured = self.limit = limit
            self._shown = None

    def restore(self, limit: int) -> None:
        """Take a limit over that was learned before a restart."""
        if self.configured * LOWEST_PART <= limit < self.configured:
            self.limit = limit
