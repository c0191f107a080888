"""Every option of the simulator."""

from __future__ import annotations

from dataclasses import dataclass

from poller.simulator.faults import Fault
from poller.simulator.keys import KEY_KINDS, KeyKind
from poller.simulator.weights import US_PER_S, Neighbour, NeighbourMode, WeightRules, WindowKind


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """What kind of exchange it is. The defaults are the real one's figures, where those are known.

    Attributes:
        accounts: how many there are; every twentieth is empty and stays so.
        key_kinds: ``hmac``, ``rsa``, ``ed25519``, given to the accounts in turn.
        seed: same seed, same accounts, keys and moves.
        window: weight is counted per clock-aligned window (``fixed``) or over the last seconds (``rolling``).
        window_s: how long the window is; the fleet's polls can be tested in shorter ones.
        weight_limit: per window, source address and ``/sapi`` endpoint.
        weight: of one ``getUserAsset``.
        latency_ms: a request and its answer take a time between these two, together.
        moves_per_s: changes of balances, of the whole fleet together, on average.
        ban_after: so many requests after a 429, before the time it named, are put up with.
        ban_min_s: the first ban of an address; each further one is twice as long.
        ban_max_s: the longest ban.
        neighbour_share: part of the limit that somebody else uses at each address.
        neighbour_mode: how: ``even`` or in ``bursts``.
        neighbour_bursts: so many bursts in each window, each at a random moment.
        skew_ms: the exchange's clock is so far ahead of this machine's; negative for behind.
        keepalive_s: a connection that is idle for longer is closed.
        faults: set from the first request on.
    """

    accounts: int = 50
    key_kinds: tuple[KeyKind, ...] = KEY_KINDS
    seed: int = 1
    window: WindowKind = "fixed"
    window_s: float = 60.0
    weight_limit: int = 12_000
    weight: int = 5
    latency_ms: tuple[float, float] = (20.0, 80.0)
    moves_per_s: float = 5.0
    ban_after: int = 10
    ban_min_s: float = 120.0
    ban_max_s: float = 259_200.0
    neighbour_share: float = 0.0
    neighbour_mode: NeighbourMode = "even"
    neighbour_bursts: int = 1
    skew_ms: float = 0.0
    keepalive_s: float = 75.0
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        for is_right, complaint in (
            (self.accounts >= 1, "accounts: at least 1"),
            (
                bool(self.key_kinds) and set(self.key_kinds) <= set(KEY_KINDS),
                f"key_kinds: some of {KEY_KINDS}",
            ),
            (self.window in {"fixed", "rolling"}, "window: fixed or rolling"),
            (self.window_s >= 0.001, "window_s: at least a millisecond"),
            (self.weight_limit >= 1 and self.weight >= 1, "weight_limit and weight: at least 1"),
            (0 <= self.latency_ms[0] <= self.latency_ms[1], "latency_ms: two numbers, the lower one first"),
            (0 <= self.moves_per_s <= 10_000, "moves_per_s: 0 to 10,000"),
            (self.ban_after >= 0, "ban_after: not negative"),
            (0 < self.ban_min_s <= self.ban_max_s, "ban_min_s: positive, and not above ban_max_s"),
            (self.neighbour_share >= 0, "neighbour_share: not negative"),
            (self.neighbour_mode in {"even", "bursts"}, "neighbour_mode: even or bursts"),
            (1 <= self.neighbour_bursts <= 1000, "neighbour_bursts: 1 to 1,000"),
            (self.keepalive_s > 0, "keepalive_s: positive"),
        ):
            if not is_right:
                raise ValueError(complaint)

    @property
    def weight_rules(self) -> WeightRules:
        """How weight is counted."""
        return WeightRules(
            window=self.window,
            length_us=round(self.window_s * US_PER_S),
            ban_after=self.ban_after,
            ban_min_us=round(self.ban_min_s * US_PER_S),
            ban_max_us=round(self.ban_max_s * US_PER_S),
        )

    @property
    def neighbour(self) -> Neighbour:
        """Who else uses the addresses."""
        return Neighbour(self.neighbour_share, self.neighbour_mode, self.seed, self.neighbour_bursts)
