"""The operator's door to a running daemon: questions and orders over a UNIX socket beside the outbox.

The daemon holds the only connection to the outbox's file, so commands do not open it beside the daemon:
they ask. One JSON object a line each way; a request is ``{"version": 1, "verb": ..., "arguments": {...}}``,
an answer ``{"answer": ...}`` or ``{"error": ...}``. Only the daemon's own user and root get one. Where no
daemon runs, a command does the same verbs on the file itself.
"""

from poller.control.client import NobodyThere, Refused, Unanswered, ask
from poller.control.fleet_verbs import balances_verbs, fleet_verbs
from poller.control.server import Serving
from poller.control.verbs import Verb, outbox_verbs
from poller.control.wire import socket_path

__all__ = [
    "NobodyThere",
    "Refused",
    "Serving",
    "Unanswered",
    "Verb",
    "ask",
    "balances_verbs",
    "fleet_verbs",
    "outbox_verbs",
    "socket_path",
]
