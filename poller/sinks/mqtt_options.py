"""Options of the ``mqtt`` sink, and what is wrong with them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from poller.secrets import Secret
from poller.sinks.messages import MessageOptions
from poller.sinks.templates import Template, spelled
from poller.sinks.tls import TlsOptions
from poller.units import Duration


def _not_reserved(template: Template) -> Template:
    if template.text.startswith("$"):
        raise ValueError(f"{template.text!r}: topics that begin with $ are the broker's own; choose another")
    return template


Topic = Annotated[
    Template,
    AfterValidator(spelled(r"[!-\"$-*,-~]*", "a topic (no spaces, no + or #)", longest_bytes=1024)),
    AfterValidator(_not_reserved),
]


class MqttOptions(MessageOptions, TlsOptions):
    """Options of the ``mqtt`` sink."""

    host: str = Field(
        "127.0.0.1",
        pattern=r"^[A-Za-z0-9._:-]+$",
        description="The broker's name or address, without a port.",
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="The broker's port; by default 1883, with TLS 8883."
    )
    user: str | None = Field(None, min_length=1, description="User name; with 'password'.")
    password: Secret | None = Field(None, description="Password of the user.")
    tls: bool = Field(
        default=False, description="Encrypt the connection, and check the broker's certificate."
    )
    client_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Of this poller alone: two clients with one id disconnect each other. By default the broker gives one.",
    )
    topic: Topic = Field(
        Template("balances/{account}"), description="Topic, with fields of the record in braces."
    )
    retain: bool = Field(
        default=False, description="Let the broker keep a topic's last record for whoever subscribes later."
    )
    expiry: Duration | None = Field(
        None, ge=1, description="Let the broker drop what was not delivered after this time, such as 1h."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> MqttOptions:
        if self.password is not None and self.user is None:
            raise ValueError("'password' without its 'user'; add the user, or remove the password")
        return self

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is encrypted."""
        return self.tls or self.has_tls_files()

    @property
    def port_number(self) -> int:
        """The port that is used."""
        return self.port or (8883 if self.is_encrypted else 1883)
