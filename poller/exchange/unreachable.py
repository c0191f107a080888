"""A way out that cannot be used now: where its proxy is kept cannot be reached."""

from __future__ import annotations

from poller.errors import NoResponse
from poller.exchange.request import Request
from poller.exchange.response import Response


class Unreachable:
    """Sends nothing. To send without the proxy would show the account at another address."""

    async def send(self, request: Request) -> Response:
        """Refuse.

        Raises:
            NoResponse: always.
        """
        raise NoResponse("the URL of the proxy cannot be had now", cause="proxy")

    async def close(self) -> None:
        """There is nothing to close."""
