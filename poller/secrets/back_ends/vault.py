"""The back end ``vault:PATH#FIELD``: a field of a secret in HashiCorp Vault or OpenBao, key/value engine, version 2."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

from poller.secrets.back_ends import BackEnd
from poller.secrets.back_ends.files import read_file, refuse_unsafe
from poller.secrets.back_ends.vault_server import Address, Answer, Server, address_in
from poller.secrets.errors import SecretUnavailable, SecretUnreadable
from poller.secrets.redaction import redact
from poller.secrets.secret import Secret

AT_ONCE: Final = 16
FAILURES_MOST: Final = 16  # in a row, then Vault is not asked again in this round
SHOWN: Final = 200  # characters of what Vault says
_DATA: Final = "data"


class VaultBackEnd(BackEnd):
    """Reads each secret once, however many of its fields are wanted, over connections that stay open."""

    form: ClassVar[str] = "vault:PATH#FIELD"
    wants: ClassVar[str] = "a path of two parts or more, '#', and a field"
    at_once: ClassVar[int] = AT_ONCE

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: dict[str, Future[Mapping[str, Any]]] = {}
        self._server: Server | None = None
        self._failures = 0
        self._last_failure: SecretUnavailable | None = None

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Tell whether it is a path without empty or dotted parts, and a field."""
        path, hash_sign, field = name.rpartition("#")
        parts = path.split("/")
        return (
            bool(hash_sign and field)
            and name.isprintable()
            and name == name.strip()
            and len(parts) >= 2
            and not any(part in {"", ".", ".."} for part in parts)
        )

    def read(self, name: str, directory: Path) -> str:
        """Return the field's text."""
        path, _, field = name.rpartition("#")
        with self._lock:
            mine = path not in self._secrets
            future = self._secrets.setdefault(path, Future())
        if mine:
            try:
                future.set_result(self._fields(path))
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                future.set_exception(error)
        value = future.result().get(field)
        if value is None:
            raise SecretUnreadable(
                f"Vault's secret {path} has no field {field!r}", f"run: vault kv get {path}"
            )
        if not isinstance(value, str):
            raise SecretUnreadable(
                f"the field {field!r} of Vault's secret {path} is not a text", "store a text"
            )
        return value

    def close(self) -> None:
        """Close all connections and forget what was read."""
        self._secrets.clear()
        if self._server is not None:
            self._server.close()

    def _fields(self, path: str) -> Mapping[str, Any]:
        server = self._connected()
        if self._failures >= FAILURES_MOST and self._last_failure is not None:
            raise self._last_failure
        try:
            fields = _judged(path, server.address, server.get(_api_path(path)))
        except SecretUnavailable as error:
            with self._lock:
                self._failures += 1
                self._last_failure = error
            raise
        except SecretUnreadable:
            self._failures = 0
            raise
        self._failures = 0
        return fields

    def _connected(self) -> Server:
        with self._lock:
            if self._server is None:
                self._server = Server(
                    address_in(os.environ),
                    _token(os.environ),
                    os.environ.get("VAULT_NAMESPACE", ""),
                    os.environ.get("VAULT_CACERT", ""),
                )
            return self._server


def _api_path(path: str) -> str:
    """Return the path as Vault's API has it: with ``data`` behind the mount.

    The mount is the first part, unless the path is written as the API has it already, which is also how
    to name a mount of several parts.
    """
    parts = path.split("/")
    if _DATA not in parts[1:-1]:
        parts.insert(1, _DATA)
    return quote("/v1/" + "/".join(parts))


def _token(environment: Mapping[str, str]) -> Secret:
    token, path = environment.get("VAULT_TOKEN", ""), environment.get("VAULT_TOKEN_FILE", "")
    if token and path:
        raise SecretUnreadable("VAULT_TOKEN and VAULT_TOKEN_FILE are both set", "keep one of the two")
    if path:
        if not Path(path).is_absolute():
            raise SecretUnreadable("VAULT_TOKEN_FILE is no absolute path", "write one")
        token = read_file(path, refuse_unsafe, if_missing="VAULT_TOKEN_FILE names it").strip()
    if not token:
        raise SecretUnreadable(
            "there is no token for Vault",
            "set VAULT_TOKEN_FILE to the path of a file with one, or VAULT_TOKEN",
        )
    if not all("!" <= sign <= "~" for sign in token):
        raise SecretUnreadable(
            "the token for Vault has blanks, line breaks or foreign letters", "copy it again"
        )
    return Secret(token)


def _judged(path: str, address: Address, answer: Answer) -> Mapping[str, Any]:
    """Return the fields of a secret, or raise what an answer without them means."""
    where, status = f"Vault at {address.shown}", answer.status
    document = _document(answer.body)
    said = _said(document)
    if status == 200:
        fields = document.get("data")
        fields = fields.get("data") if isinstance(fields, dict) else None
        if not isinstance(fields, dict):
            raise SecretUnreadable(
                f"what {where} answers for {path} is no secret of the key/value engine, version 2",
                "is VAULT_ADDR right, and the engine of version 2?",
            )
        return fields
    if status == 403:
        raise SecretUnreadable(
            f"{where} does not let us read {path}: permission denied",
            "let the token's policy read it; if the token has expired, put in a new one",
        )
    if status == 404:
        raise SecretUnreadable(*_missing(path, where, document))
    if status == 503 and "sealed" in said:
        raise SecretUnavailable(f"{where} is sealed", "unseal it: vault operator unseal")
    if status in {412, 429} or status >= 500:
        raise SecretUnavailable(f"{where} cannot answer now: status {status}{said}")
    if 300 <= status < 400:
        raise SecretUnreadable(
            f"{where} redirects to another place, where the token is not sent",
            "set VAULT_ADDR to the server that answers itself",
        )
    raise SecretUnreadable(f"{where} refuses to read {path}: status {status}{said}", "is VAULT_ADDR right?")


def _missing(path: str, where: str, document: Mapping[str, Any]) -> tuple[str, str]:
    if isinstance(document.get("data"), dict):  # with the times of its version, and no data in it
        return (
            f"the newest version of {path} in {where} was deleted",
            f"run: vault kv undelete, or vault kv put {path}",
        )
    return f"there is no secret {path} in {where}", f"run: vault kv get {path}; the first part is the mount"


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _said(document: Mapping[str, Any]) -> str:
    """Return the first of Vault's own words, for messages; empty if there are none."""
    errors = document.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else ""
    shown = "".join(sign for sign in first if sign.isprintable()) if isinstance(first, str) else ""
    return f": {redact(shown)[:SHOWN]}" if shown else ""
