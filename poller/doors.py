"""The ways in to a running daemon: its socket for commands, and its HTTP server, which may come and go."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from poller.clock import NS_PER_S, Clock, rfc3339
from poller.control import Serving, Verb, balances_verbs, fleet_verbs, outbox_verbs, socket_path
from poller.errors import ConfigError, Problem, ServerNotBound
from poller.history import HistoryUnreadable, read_history, thinned
from poller.metrics import Metrics
from poller.overview import HistoryPoint, Overview
from poller.parts import Parts
from poller.preparing import InForce
from poller.server.answers import Refused
from poller.server.serving import Address, Server
from poller.server.worker import Worker

logger = logging.getLogger(__name__)

LISTEN_AGAIN_S: Final = 10.0
HISTORY_POINTS: Final = 2_000  # more than a chart has pixels


class Doors:
    """Lets operators in while the daemon runs.

    Args:
        now: what is in force at first; see ``adopt``.
        parts: of the daemon.
        overview: what there is to see of it.
        reload: has the configuration read anew; returns what is different, raises ``ConfigError``.
        is_alive: returns what keeps the daemon from its work; empty if nothing does.

    Attributes:
        address: where the HTTP server listens; ``None`` while it does not.
    """

    def __init__(
        self,
        now: InForce,
        parts: Parts,
        overview: Overview,
        reload: Callable[[], Any],
        *,
        clock: Clock,
        metrics: Metrics,
        is_alive: Callable[[], str],
    ) -> None:
        self.address: Address | None = None
        self._now = now
        self._overview = overview
        self._reload = reload
        self._clock = clock
        self._metrics = metrics
        self._is_alive = is_alive
        self._changed = asyncio.Event()
        self._reader = Worker()  # of histories: the daemon's own threads look up names for polls
        self._socket = socket_path(now.config.outbox.path)
        self._verbs: Mapping[str, Verb] = {
            **outbox_verbs(parts.outbox, clock),
            **balances_verbs(parts.outbox),
            **fleet_verbs(overview),
            "reload": self._reload_verb,
        }

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let operators in as long as the context lasts. That a way in cannot be opened ends nothing."""
        serving = asyncio.create_task(self._serve(), name="server")
        try:
            async with Serving(self._socket, self._verbs):
                yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            self._reader.close()

    def check(self, new: InForce) -> None:
        """Try whether a configuration's server could listen, if it is to listen elsewhere than now.

        Raises:
            ConfigError: it could not.
        """
        settings, old = new.config.server, self._now.config.server
        if settings is None or (old is not None and old.listen_port == settings.listen_port):
            return  # at the port that it has now it is in its own way, until it closes
        family = socket.AF_INET6 if ":" in settings.listen_host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((settings.listen_host, settings.listen_port))
        except OSError as error:
            place = new.config.place("server.listen")
            message = f"cannot listen there: {error.strerror or error}"
            raise ConfigError(
                [Problem(place.file, place.line, "server.listen", message, "write another address or port")]
            ) from error

    def adopt(self, new: InForce) -> None:
        """Serve as another configuration says from now on. Who is connected then has to come again."""
        is_another = (new.config.server, new.secrets.server_token) != (
            self._now.config.server,
            self._now.secrets.server_token,
        )
        self._now = new
        if is_another:
            self._changed.set()

    async def _serve(self) -> None:
        told = ""
        while True:
            self._changed.clear()
            # The token alone: this frame lasts, and would keep every other secret from before.
            config, token = self._now.config, self._now.secrets.server_token
            if config.server is None or (config.server_token is not None and token is None):
                await self._changed.wait()
                continue
            server = Server(
                self._overview,
                self._metrics,
                self._clock,
                config.server,
                token=token,
                history=self._history,
                is_alive=self._is_alive,
            )
            try:
                async with server:
                    self.address, told = server.address, ""
                    await self._changed.wait()
            except ServerNotBound as error:
                # Somebody who sees nothing is better off than somebody for whom nothing is polled.
                if told != str(error):
                    told = str(error)
                    logger.error(  # noqa: TRY400  # no bug that a traceback would help with
                        "the server cannot listen; the daemon goes on without", extra={"error": told}
                    )
                await self._wait(LISTEN_AGAIN_S)
            except Exception:
                logger.exception("the server failed for a reason of our own; it begins anew")
                await self._wait(LISTEN_AGAIN_S)
            finally:
                self.address = None

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _history(
        self, account: str, asset: str | None, since_s: float
    ) -> Sequence[HistoryPoint] | None:
        """Read what an account held from the first sink that keeps it; ``None`` if there is none.

        Raises:
            Refused: it cannot be read now; the text says why.
        """
        sinks = self._now.config.sinks.values()
        path = next((sink.options["path"] for sink in sinks if sink.kind == "sqlite"), None)
        if path is None:
            return None
        since = rfc3339(self._clock.utc_ns() - round(since_s * NS_PER_S))
        try:
            points = await self._reader.run(read_history, path, account, asset, since)
        except HistoryUnreadable as error:
            raise Refused(503, str(error)) from error
        return thinned(points, HISTORY_POINTS)

    async def _reload_verb(self, _: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"changed": list(await self._reload())}
        except ConfigError as error:
            return {"problems": [str(problem) for problem in error.problems]}
        except (KeyError, TypeError) as error:
            raise RuntimeError("the reload failed") from error  # and not for its arguments: it has none
