"""One Vault server over HTTP: its address, connections that stay open, and answers within bounds of time and size."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from poller.secrets.errors import SecretUnavailable, SecretUnreadable
from poller.secrets.secret import Secret

TIME_LIMIT_S: Final = 5.0
MAX_BODY_BYTES: Final = 1024 * 1024
_AGAIN_S: Final = 0.2  # between two attempts to break off: during a TLS handshake one may miss the socket
_WRITE_ADDRESS: Final = "set it to https://HOST:8200"


@dataclass(frozen=True, slots=True)
class Address:
    """Where Vault is. ``prefix`` is what stands before ``/v1``, ``shown`` how messages name it."""

    host: str
    port: int
    is_tls: bool
    prefix: str
    shown: str


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """What Vault said. The body may hold secrets."""

    status: int
    body: bytes


def address_in(environment: Mapping[str, str]) -> Address:
    """Return the address in ``VAULT_ADDR``.

    Raises:
        SecretUnreadable: it is not set, or not to be used.
    """
    text = environment.get("VAULT_ADDR", "")
    if not text:
        raise SecretUnreadable("environment variable VAULT_ADDR is not set", _WRITE_ADDRESS)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise SecretUnreadable("VAULT_ADDR is no URL", _WRITE_ADDRESS) from None
    host = url.hostname or ""
    if url.scheme not in {"http", "https"} or not host or url.query or url.fragment:
        raise SecretUnreadable("VAULT_ADDR is no URL of a server", _WRITE_ADDRESS)
    if "@" in url.netloc:
        raise SecretUnreadable(
            "VAULT_ADDR has a user in it", "Vault knows us by VAULT_TOKEN; take the user out"
        )
    if url.scheme == "http" and not _is_loopback(host):
        raise SecretUnreadable(
            "VAULT_ADDR would send the token and all secrets in the clear",
            "write https://; plain http is for this machine only (127.0.0.1, ::1, localhost)",
        )
    is_tls = url.scheme == "https"
    return Address(
        host, port or (443 if is_tls else 80), is_tls, url.path.rstrip("/"), f"{url.scheme}://{url.netloc}"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server:
    """Asks one Vault. Several threads may ask at the same time.

    No proxy is used, whatever the environment says, and no redirect is followed: each would see the token.

    Args:
        address: where it is.
        token: who we are.
        namespace: of Vault's enterprise edition and OpenBao; empty for none.
        ca_path: authorities to trust instead of the system's; empty for those.

    Raises:
        SecretUnreadable: the authorities cannot be read.
    """

    def __init__(self, address: Address, token: Secret, namespace: str, ca_path: str) -> None:
        self.address = address
        self._token = token
        self._namespace = namespace
        self._context = _context(ca_path) if address.is_tls else None
        self._kept: list[http.client.HTTPConnection] = []

    def get(self, path: str) -> Answer:
        """Ask once; again only if a connection that was kept open turns out dead before any answer.

        Raises:
            SecretUnavailable: no whole answer came in time.
            SecretUnreadable: what answers is not what belongs there.
        """
        while True:
            kept, connection = self._connection()
            try:
                return self._exchange(connection, self.address.prefix + path)
            except (ConnectionResetError, BrokenPipeError) as error:  # RemoteDisconnected is one of them
                connection.close()
                if not kept:
                    raise self._unavailable(error) from None
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise self._failure(error) from None
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        """Close all connections."""
        while self._kept:
            self._kept.pop().close()

    def _connection(self) -> tuple[bool, http.client.HTTPConnection]:
        with suppress(IndexError):
            return True, self._kept.pop()
        host, port = self.address.host, self.address.port
        if self._context is None:
            return False, http.client.HTTPConnection(host, port, timeout=TIME_LIMIT_S)
        return False, http.client.HTTPSConnection(host, port, timeout=TIME_LIMIT_S, context=self._context)

    def _exchange(self, connection: http.client.HTTPConnection, path: str) -> Answer:
        headers = {
            "X-Vault-Token": self._token.reveal(),
            "X-Vault-Request": "true",
            "Accept": "application/json",
        }
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        done, expired = threading.Event(), threading.Event()
        threading.Thread(target=_watch, args=(connection, done, expired), daemon=True).start()
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read(MAX_BODY_BYTES + 1)
            is_cut_off = bool(response.length) and len(body) <= MAX_BODY_BYTES
        except (OSError, http.client.HTTPException):
            if expired.is_set():
                raise self._too_slow() from None
            raise
        finally:
            done.set()
        if expired.is_set():
            raise self._too_slow()
        if len(body) > MAX_BODY_BYTES:
            message = f"Vault at {self.address.shown} answers with more than {MAX_BODY_BYTES} bytes"
            raise SecretUnreadable(message, "is VAULT_ADDR right?")
        if is_cut_off:
            raise SecretUnavailable(f"Vault at {self.address.shown} broke off its answer")
        if response.isclosed() and not response.will_close:
            self._kept.append(connection)
        else:
            connection.close()
        return Answer(response.status, body)

    def _too_slow(self) -> SecretUnavailable:
        return SecretUnavailable(f"Vault at {self.address.shown} did not answer within {TIME_LIMIT_S:g} s")

    def _failure(self, error: OSError | http.client.HTTPException) -> SecretUnreadable:
        where = f"Vault at {self.address.shown}"
        if isinstance(error, TimeoutError):
            return self._too_slow()
        if isinstance(error, ssl.SSLCertVerificationError):
            return SecretUnreadable(
                f"{where} cannot be trusted: {error.verify_message}",
                "set VAULT_CACERT to its authority's PEM file",
            )
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return SecretUnreadable(f"{where} does not speak TLS as it should", "is VAULT_ADDR right?")
        if isinstance(error, http.client.HTTPException) and not isinstance(error, http.client.IncompleteRead):
            return SecretUnreadable(f"{where} does not speak HTTP", "is VAULT_ADDR right?")
        return self._unavailable(error)

    def _unavailable(self, error: OSError | http.client.HTTPException) -> SecretUnavailable:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        return SecretUnavailable(f"Vault at {self.address.shown} cannot be reached: {reason}")


def _watch(connection: http.client.HTTPConnection, done: threading.Event, expired: threading.Event) -> None:
    """Break off what takes too long as a whole: the socket's own limit starts anew with every byte."""
    patience_s = TIME_LIMIT_S
    while not done.wait(patience_s):
        expired.set()
        patience_s = _AGAIN_S
        with suppress(OSError):
            if (connected := connection.sock) is not None:
                # Not by the TLS socket's own method, which takes the session from under the reader.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


def _context(ca_path: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_path or None)
    except OSError as error:
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise SecretUnreadable(
            f"the file in VAULT_CACERT cannot be used: {reason}", "name a PEM file of authorities"
        ) from None
