"""Tells the service manager how the daemon is doing: the protocol of sd_notify, which is a datagram a message.

The watchdog is fed only while every dispatcher turns. So a loop that is blocked and a dispatcher that hangs
look alike from outside, as they should: nothing is polled, and a restart helps.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections.abc import MutableMapping
from typing import Final

from poller.beat import TURN_EVERY_S, Beat
from poller.clock import Clock

logger = logging.getLogger(__name__)

US_PER_S: Final = 1_000_000
VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
STATUS_CHARACTERS: Final = 400


class ServiceManager:
    """Whoever started the daemon, if it wants to know; else every message goes nowhere.

    Args:
        address: of its socket: a path, or ``@`` and an abstract name; empty if there is none.
        watchdog_s: it expects to be fed at least so often; ``None`` if it does not.
    """

    def __init__(self, address: str, watchdog_s: float | None, clock: Clock) -> None:
        self.watchdog_s = watchdog_s
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._clock = clock
        self._owed: dict[str, str] = {}  # what could not be sent, and is sent with the next message
        self._said = ""
        self._is_stopping = False

    @classmethod
    def from_environment(
        cls, clock: Clock, environ: MutableMapping[str, str] | None = None
    ) -> ServiceManager:
        """Read what the service manager has put there, and take it out: it is not for processes of ours.

        A watchdog that is meant for another process is none, and neither is a time that cannot be read.
        """
        environ = os.environ if environ is None else environ
        address, watchdog_us, watchdog_pid = (environ.pop(name, "") for name in VARIABLES)
        is_ours = watchdog_pid in {"", str(os.getpid())}
        is_a_time = watchdog_us.isascii() and watchdog_us.isdigit() and int(watchdog_us) > 0
        return cls(address, int(watchdog_us) / US_PER_S if is_ours and is_a_time else None, clock)

    def ready(self, status: str = "") -> None:
        """The daemon has started, or a reload has ended. Nothing is said after ``stopping``."""
        if self._is_stopping:
            return
        self._tell(state="READY=1", status=_status(status))

    def reloading(self, status: str = "") -> None:
        """A reload begins; its end, good or bad, is ``ready``."""
        if self._is_stopping:
            return
        since = f"MONOTONIC_USEC={int(self._clock.monotonic_s() * US_PER_S)}"
        self._tell(state=f"RELOADING=1\n{since}", status=_status(status))

    def stopping(self, status: str = "") -> None:
        """The end begins."""
        self._is_stopping = True
        self._tell(state="STOPPING=1", status=_status(status))

    def status(self, status: str) -> None:
        """Say in a few words how it stands; no secret, for everybody on the machine can read it."""
        self._tell(status=_status(status))

    async def watch(self, beat: Beat) -> None:
        """Feed the watchdog at half its interval while every dispatcher turns; log it when one does not.

        Until cancelled, and also without a watchdog: a hang is worth a line anyway.
        """
        feed_every_s = math.inf if self.watchdog_s is None else self.watchdog_s / 2
        # Looked at more often than it is fed: a reason to wait is seen only when it is looked at.
        looks = math.ceil(feed_every_s / TURN_EVERY_S) if math.isfinite(feed_every_s) else 1
        told, number = "", 0
        while True:
            trouble = beat.trouble(self._clock.monotonic_s())
            if trouble and not told:
                logger.error("polls hang: the watchdog is not fed", extra={"error": trouble})
                self.status(trouble)
            elif told and not trouble:
                logger.warning("polls go on: the watchdog is fed again")
                self.status("polls go on")
                number = 0
            told = trouble
            if not told and self.watchdog_s is not None and number % looks == 0:
                self._tell(state="WATCHDOG=1")
            number += 1
            await asyncio.sleep(min(feed_every_s / looks, TURN_EVERY_S))

    def _tell(self, **lines: str) -> None:
        """Send lines, and with them what could not be sent before; a newer one stands for an older of its name."""
        if not self._address:
            return
        message = {**self._owed, **{name: line for name, line in lines.items() if line}}
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # A service manager that does not read must not hold up the polls.
                sender.settimeout(0)
                sender.sendto("\n".join(message.values()).encode(), self._address)
        except OSError as error:
            # To be fed late is not to be fed; what else it has to know it is told later.
            self._owed = {name: line for name, line in message.items() if line != "WATCHDOG=1"}
            if (said := error.strerror or str(error)) != self._said:
                self._said = said
                logger.warning("the service manager cannot be told how it stands", extra={"error": said})
        else:
            self._owed, self._said = {}, ""


def _status(text: str) -> str:
    """Return the line of a status: one line, and none of nothing."""
    return f"STATUS={' '.join(text.split())[:STATUS_CHARACTERS]}" if text else ""
