"""The daemon's own HTTP server, read-only: the page, the API, the metrics and the health of the daemon.

Everything it shows comes from a ``poller.overview.Overview``.
"""

from __future__ import annotations

from poller.server.serving import Address, Server
from poller.server.settings import ServerSettings

__all__ = ["Address", "Server", "ServerSettings"]
