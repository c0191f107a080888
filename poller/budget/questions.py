"""Questions besides polls, asked within the budget: each waits for its weight and for the end of a pause."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from poller.budget import WeightBudget
from poller.errors import OutboxFull, PollError

T = TypeVar("T")


class Questions:
    """Pays for questions from the budget of one egress address, and draws the consequences of errors.

    Args:
        budget: pays for every question; none is asked during a pause.
        blame: told of every error, so that a 429 here silences the address as any other does.
    """

    def __init__(self, budget: WeightBudget, blame: Callable[[PollError], Awaitable[None]]) -> None:
        self.egress = budget.egress
        self._budget = budget
        self._blame = blame

    async def ask(self, question: Callable[[], Awaitable[T]], *, weight: int) -> T | PollError | OutboxFull:
        """Ask once there is weight for it and no pause; return the answer, or why there is none.

        ``weight`` is the documented one of the request that ``question`` sends.

        Raises:
            OutboxFailed: the process must stop.
        """
        try:
            while (grant := await self._budget.acquire(weight, reported=False)) is None:
                await self._budget.resumed()
        except OutboxFull as error:
            return error
        try:
            return await question()
        except PollError as error:
            await self._blame(error)
            return error
        finally:
            # Not called good: the weight in this answer is another endpoint's, and tells nothing of polls.
            self._budget.answered(grant)
