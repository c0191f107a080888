"""Says in the log when somebody else begins to use an address, and when they are gone for good."""

from __future__ import annotations

import logging
import math
from typing import Final

from poller.budget.window import WeightWindow

logger = logging.getLogger(__name__)

SPEAK_EVERY_S: Final = 60.0  # who comes and goes is no news each time


class ForeignTeller:
    """What was said last of the others on one address."""

    def __init__(self, egress: str, window: WeightWindow) -> None:
        self._egress = egress
        self._window = window
        self._told = False
        self._told_s = -math.inf

    def look(self, now_s: float) -> None:
        """Say it if it is other than what was said, and not too soon after that."""
        foreign = self._window.foreign(now_s)
        if (foreign > 0) is self._told or now_s < self._told_s + SPEAK_EVERY_S:
            return
        self._told, self._told_s = foreign > 0, now_s
        if foreign:
            logger.warning(
                "somebody else uses weight of this address; our part shrinks by it",
                extra={"egress": self._egress, "foreign": foreign, "capacity": self._window.capacity(now_s)},
            )
        else:
            logger.info("nobody else uses weight of this address any more", extra={"egress": self._egress})
