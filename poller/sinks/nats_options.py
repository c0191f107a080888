"""Options of the ``nats`` sink, and what is wrong with them."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Annotated, Final

from pydantic import AfterValidator, Field, field_validator, model_validator

from poller.secrets import Secret
from poller.sinks.messages import MessageOptions
from poller.sinks.templates import Template, spelled
from poller.sinks.tls import TlsOptions
from poller.units import Duration, Size

DUPLICATE_WINDOW_S: Final = 600.0

_SERVER = re.compile(r"(nats|tls)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?")
_TOKENS = re.compile(r"[^.]+(\.[^.]+)*")
_FIELD = re.compile(r"\{[^{}]*\}")
_SEED = re.compile(r"SU[A-Z2-7]{56}")
_JWT_LINE = "-----BEGIN NATS USER JWT-----"
_SEED_LINE = "-----BEGIN USER NKEY SEED-----"


def _whole(template: Template) -> Template:
    if not _TOKENS.fullmatch(template.example()):
        raise ValueError(f"{template.text!r} has an empty part; write names between its dots")
    if template.text.startswith(("$", "_INBOX")):
        raise ValueError(
            f"{template.text!r}: what begins with $ or _INBOX is the server's own; choose another"
        )
    return template


Subject = Annotated[
    Template,
    AfterValidator(spelled(r"[!-)+-=?-~]*", "a subject (no spaces, no * or >)", longest_bytes=1024)),
    AfterValidator(_whole),
]


class NatsOptions(MessageOptions, TlsOptions):
    """Options of the ``nats`` sink."""

    servers: list[str] = Field(
        ["nats://127.0.0.1:4222"],
        min_length=1,
        description="The servers of one cluster, nats://host:port or tls://host:port; any that answers is used.",
    )
    user: str | None = Field(None, min_length=1, description="User name; with 'password'.")
    password: Secret | None = Field(None, description="Password of the user.")
    token: Secret | None = Field(None, description="Token, in the place of user and password.")
    credentials: Secret | None = Field(None, description="Content of a .creds file: a user's JWT and seed.")
    nkey_seed: Secret | None = Field(None, description="Seed of a user's NKey, SU...")
    subject: Subject = Field(
        Template("balances.{account}"), description="Subject, with fields of the record in braces."
    )
    stream: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,255}$",
        description="The stream that has to take the records; by default, whichever has the subject.",
    )
    create: bool = Field(False, description="Make the stream, in files, if it is missing.")  # noqa: FBT003
    max_age: Duration | None = Field(
        None, ge=1, description="Of a created stream: records older than this are removed; by default, none."
    )
    max_size: Size | None = Field(
        None,
        ge=1,
        description="Of a created stream: beyond this size the oldest are removed; by default, none.",
    )
    duplicate_window: Duration | None = Field(
        None,
        ge=1,
        description="Of a created stream: for how long it knows an id again; by default 10m, or max_age if that is less.",
    )
    replicas: int = Field(1, ge=1, le=5, description="Of a created stream: on how many servers it is kept.")

    @field_validator("servers")
    @classmethod
    def _are_servers(cls, servers: list[str]) -> list[str]:
        for server in servers:
            # Not repeated: a password may stand in it.
            if "@" in server:
                raise ValueError(
                    "a server with credentials in it; remove them there, and use 'user' and 'password', or 'token'"
                )
            if not _SERVER.fullmatch(server):
                raise ValueError("not a server; write nats://host:port or tls://host:port")
        return servers

    @field_validator("nkey_seed")
    @classmethod
    def _is_seed(cls, secret: Secret | None) -> Secret | None:
        if secret is not None and secret.reveal():
            _needs_nkeys("nkey_seed")
            if not _SEED.fullmatch(secret.reveal().strip()):
                raise ValueError("is not the seed of a user's NKey, which are 58 characters from SU on")
        return secret

    @field_validator("credentials")
    @classmethod
    def _is_credentials(cls, secret: Secret | None) -> Secret | None:
        if secret is not None and secret.reveal():
            _needs_nkeys("credentials")
            lines = credential_lines(secret)
            # The client would look for the first for ever, and at the line behind each whatever it is.
            if not (
                _value_after(lines, _JWT_LINE).count(".") == 2
                and _SEED.fullmatch(_value_after(lines, _SEED_LINE))
            ):
                raise ValueError("is not the content of a .creds file, with a user's JWT and seed")
        return secret

    @model_validator(mode="after")
    def _fit_together(self) -> NatsOptions:
        if (self.user is None) != (self.password is None):
            raise ValueError("'user' and 'password' go together; add the other, or remove this one")
        ways = ("password", "token", "credentials", "nkey_seed")
        if len(given := [name for name in ways if getattr(self, name) is not None]) > 1:
            raise ValueError(f"{' and '.join(map(repr, given))} are ways to log in; keep one of them")
        self._check_stream()
        return self

    def _check_stream(self) -> None:
        limits = ("max_age", "max_size", "duplicate_window", "replicas")
        if not self.create:
            if given := [name for name in limits if name in self.model_fields_set]:
                raise ValueError(
                    f"{given[0]!r} is a limit of a created stream; add 'create: true', or remove it"
                )
            return
        if self.stream is None:
            raise ValueError("'create' without the name of the 'stream' to make; add it")
        if self.subjects_of_stream.startswith("*"):
            raise ValueError(
                f"a stream for {self.subject.text!r} would take every subject; begin the subject with a fixed name"
            )
        if self.max_age is not None and self.duplicate_window_s > self.max_age:
            raise ValueError("'duplicate_window' cannot be longer than 'max_age'")

    @property
    def is_encrypted(self) -> bool:
        """Whether nothing may be sent without TLS."""
        return self.has_tls_files() or any(server.startswith("tls://") for server in self.servers)

    @property
    def subjects_of_stream(self) -> str:
        """Every subject that records can have, as a stream is told it."""
        tokens = _FIELD.sub("\0", self.subject.text).split(".")
        return ".".join("*" if "\0" in token else token for token in tokens)

    @property
    def duplicate_window_s(self) -> float:
        """Seconds for which a created stream knows an id again."""
        if self.duplicate_window is not None:
            return self.duplicate_window
        return DUPLICATE_WINDOW_S if self.max_age is None else min(DUPLICATE_WINDOW_S, self.max_age)


def credential_lines(secret: Secret) -> list[str]:
    """Return the lines of a .creds file as the client can read them: without blanks and carriage returns."""
    return [line.strip() for line in secret.reveal().splitlines()]


def _value_after(lines: list[str], boundary: str) -> str:
    place = lines.index(boundary) + 1 if boundary in lines else len(lines)
    return lines[place] if place < len(lines) else ""


def _needs_nkeys(option: str) -> None:
    if find_spec("nkeys") is None:
        raise ValueError(
            f"{option!r} needs the package 'nkeys', which is not installed; run: pip install nkeys"
        )
