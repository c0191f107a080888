"""What a daemon consists of, and what a single round does: made by ``poller.assembly``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poller.acceptance import Acceptance
from poller.budget import WeightBudget
from poller.checking import KeyChecker
from poller.delivery import Delivery
from poller.discovery import DiscoveryWatch
from poller.egress import Egress
from poller.exchange.client import ExchangeClient
from poller.exchange.server_time import ServerTime
from poller.locks import FileLock
from poller.model import Account
from poller.observations import Observations
from poller.outbox import Outbox
from poller.outcomes import Outcomes
from poller.polling import Dispatcher
from poller.timekeeping import TimeKeeper


@dataclass(frozen=True, slots=True)
class RoundEgress:
    """What there is of one egress address for a single round."""

    accounts: Sequence[Account]
    budget: WeightBudget
    outcomes: Outcomes
    dispatcher: Dispatcher
    checker: KeyChecker


@dataclass(frozen=True, slots=True)
class RoundParts:
    """What a single round needs, while it is open."""

    client: ExchangeClient
    server_time: ServerTime
    timekeeper: TimeKeeper
    egress: Mapping[str, RoundEgress]
    discoveries: Mapping[str, DiscoveryWatch]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a daemon consists of, while it is open. Addresses and deliveries come and go.

    Attributes:
        locks: of the addresses that requests leave from, by what stands for each: see ``address_key``.
    """

    outbox: Outbox
    client: ExchangeClient
    server_time: ServerTime
    timekeeper: TimeKeeper
    acceptance: Acceptance
    observations: Observations
    egress: dict[str, Egress]
    deliveries: dict[str, Delivery]
    discoveries: dict[str, DiscoveryWatch]
    locks: dict[str, FileLock | None]
