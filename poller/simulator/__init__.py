"""A stand-in exchange: what the poller is tried against, and what its users can test their consumers with.

    async with serve(SimulatorSettings(accounts=3)) as simulator:
        ...  # poll simulator.url with the keys of simulator.accounts

It shares no code with the poller but the clock: a fake that shared our signing and parsing would share our
mistakes. Reading order: ``settings``, ``exchange``, ``rules``, ``weights``, ``market``, ``faults``, ``server``.
"""

from poller.simulator.configuration import NotOurs, write_config
from poller.simulator.exchange import Exchange
from poller.simulator.faults import Fault, FaultKind
from poller.simulator.keys import KEY_KINDS, KeyKind, SimulatedAccount
from poller.simulator.server import SimulatorServer, serve
from poller.simulator.settings import SimulatorSettings

__all__ = [
    "KEY_KINDS",
    "Exchange",
    "Fault",
    "FaultKind",
    "KeyKind",
    "NotOurs",
    "SimulatedAccount",
    "SimulatorServer",
    "SimulatorSettings",
    "serve",
    "write_config",
]
