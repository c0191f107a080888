"""How much a neighbour in bursts leaves, under a rolling window, to whoever never wants a 429.

Nobody knows of a burst before an answer tells, so each request has to fit with one burst more than is
there. Here is a client without latency that knows what is there, and sends the moment that so much fits.
What it uses is what can be had without knowing the moments beforehand; under aligned windows all that the
neighbour leaves can be had, because its share of each window is known from the last.
"""

from __future__ import annotations

import heapq

from poller.simulator.weights import Neighbour

LENGTH_US = 10_000_000
WEIGHT = 5
LIMIT = 2000
SHARE = 0.4
WINDOWS = 2000
BURSTS = (1, 3, 10, 40)


def within_reach(
    neighbour: Neighbour, *, limit: int = LIMIT, weight: int = WEIGHT, windows: int = WINDOWS
) -> float:
    """Return the part of what the neighbour leaves that is used so, 1.0 for all."""
    burst = -(-round(neighbour.share * limit) // neighbour.bursts)
    end_us = windows * LENGTH_US
    # Whatever changes how much fits: (when, by how much the weight in the window grows).
    changes = [
        (at_us + leaves * LENGTH_US, -size if leaves else size)
        for at_us, size in neighbour.uses(0, end_us, limit, LENGTH_US)
        for leaves in (False, True)
    ]
    heapq.heapify(changes)
    present = ours = 0
    heapq.heappush(changes, (0, 0))
    while changes and changes[0][0] < end_us:
        now_us, change = heapq.heappop(changes)
        present += change
        if changes and changes[0][0] == now_us:
            continue
        sent = max(0, limit - burst - present) // weight * weight
        if sent:
            present += sent
            ours += sent
            heapq.heappush(changes, (now_us + LENGTH_US, -sent))
    return ours / (windows * limit * (1 - neighbour.share))


def main() -> None:
    """Print a line for each number of bursts."""
    for bursts in BURSTS:
        reached = within_reach(Neighbour(SHARE, "bursts", bursts=bursts))
        print(f"{SHARE:.0%} of the limit in {bursts:2d} bursts a window: {reached:6.1%} of what is left")


if __name__ == "__main__":
    main()
