"""A stand-in for Vault: the key/value engine, version 2, over real sockets, as its HTTP API is documented."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MOUNT = "secret"
TOKEN = "hvs.CAESIJ-a-token-of-vault"


class VaultStandIn:
    """What the server holds, how it misbehaves, and what it was asked.

    Attributes:
        secrets: fields by path below the mount; ``None`` for one whose newest version was deleted.
        denied: paths that the token's policy does not let it read.
        sealed: as a Vault is after its start.
        trouble: ``slow``, ``drip``, ``huge``, ``garbage``, ``cut``, ``redirect``, ``limited`` or nothing.
        asked: the path of every request.
        connections: how many were accepted.
    """

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any] | None] = {}
        self.denied: set[str] = set()
        self.namespace = ""
        self.sealed = False
        self.trouble = ""
        self.status = 200
        self.redirect_to = ""
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.closing = threading.Event()
        self.url = ""

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """What the API documents for a GET."""
        self.asked.append(path)
        self.headers.append(headers)
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if headers.get("x-vault-token") != TOKEN or headers.get("x-vault-namespace", "") != self.namespace:
            return 403, {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}
        prefix = f"/v1/{MOUNT}/data/"
        name = path.removeprefix(prefix)
        if name in self.denied:
            return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        if not path.startswith(prefix) or name not in self.secrets:
            return 404, {"errors": []}
        fields = self.secrets[name]
        metadata = {
            "created_time": "2026-01-01T00:00:00Z",
            "deletion_time": "",
            "destroyed": False,
            "version": 1,
        }
        if fields is None:
            return 404, {
                "data": {"data": None, "metadata": metadata | {"deletion_time": "2026-01-02T00:00:00Z"}}
            }
        return 200, {"request_id": "1", "lease_id": "", "data": {"data": fields, "metadata": metadata}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stand_in: VaultStandIn

    def setup(self) -> None:
        super().setup()
        self.stand_in.connections += 1

    def do_GET(self) -> None:
        vault = self.stand_in
        status, document = vault.answer(
            self.path, {key.lower(): value for key, value in self.headers.items()}
        )
        body = json.dumps(document).encode()
        if vault.trouble == "slow":
            vault.closing.wait()
            return
        if vault.trouble == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not vault.closing.wait(0.05):
                self.wfile.write(b"x")
            return
        if vault.trouble == "no http":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            self.close_connection = True
            return
        if vault.trouble == "huge":
            body = b'{"data": "' + b"x" * (2 * 1024 * 1024) + b'"}'
        if vault.trouble == "garbage":
            body = b"<html>welcome</html>"
        if vault.trouble == "status":
            status, body = vault.status, b'{"errors": ["as the test wants it"]}'
        if vault.trouble == "redirect":
            status, body = 307, b""
        self.send_response(status)
        if vault.trouble == "redirect":
            self.send_header("Location", vault.redirect_to + self.path)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + 10 * (vault.trouble == "cut")))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = vault.trouble in {"cut", "close"}

    def log_message(self, *args: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that break off are part of the tests."""


@contextmanager
def vault_stand_in(pair: Path | None = None) -> Iterator[VaultStandIn]:
    """Serve on a free port of the loopback address, with TLS if there is a certificate with its key."""
    vault = VaultStandIn()
    handler = type("Handler", (_Handler,), {"stand_in": vault})
    with _Server(("127.0.0.1", 0), handler) as server:
        if pair is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        vault.url = f"http{'s' if pair else ''}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield vault
        finally:
            vault.closing.set()
            server.shutdown()
            thread.join()
