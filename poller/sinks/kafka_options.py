"""What can be written about a ``kafka`` sink, and what is wrong with it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from aiokafka import codec
from pydantic import AfterValidator, Field, field_validator, model_validator

from poller.secrets import Secret
from poller.sinks.messages import MessageOptions
from poller.sinks.templates import Template, spelled
from poller.sinks.tls import TlsOptions
from poller.units import Size

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

Topic = Annotated[Template, AfterValidator(spelled(r"[A-Za-z0-9._-]*", "a topic", longest_bytes=249))]


class KafkaOptions(MessageOptions, TlsOptions):
    """Options of the ``kafka`` sink."""

    bootstrap: tuple[str, ...] = Field(
        min_length=1, description="Brokers to ask first, each as host:port; two or three of them."
    )
    topic: Topic = Field(Template("balances"), description="The topic, fields of the record in braces.")
    client_id: str = Field(
        "poller", pattern=r"^[A-Za-z0-9._-]{1,128}$", description="How we are called in the brokers' logs."
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "none",
        description="Of batches. Every installation has none and gzip; the others need aiokafka's extra 'all'.",
    )
    max_message: Size = Field(
        1024 * 1024,
        ge=1024,
        le=1024**3,
        description="Largest message and batch, as the topic's max.message.bytes; larger records are refused.",
    )
    tls: bool = Field(False, description="Encrypt the connection.")  # noqa: FBT003  # a field's default
    sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="How to log in. PLAIN without TLS sends the password in the clear."
    )
    user: str | None = Field(None, min_length=1, description="Who logs in.")
    password: Secret | None = Field(None, description="The user's password.")

    @field_validator("bootstrap")
    @classmethod
    def _are_addresses(cls, bootstrap: tuple[str, ...]) -> tuple[str, ...]:
        for address in bootstrap:
            match = _ADDRESS.fullmatch(address)
            if match is None or not 0 < int(match[2]) < 1 << 16:
                raise ValueError(f"{address!r} is not an address; write host:port, such as kafka-1:9092")
        return bootstrap

    @field_validator("topic")
    @classmethod
    def _is_no_folder(cls, topic: Template) -> Template:
        if topic.text in {".", ".."}:
            raise ValueError(f"{topic.text!r} cannot be a topic; give it a name")
        return topic

    @field_validator("compression")
    @classmethod
    def _is_at_hand(cls, compression: str) -> str:
        if compression != "none" and not getattr(codec, f"has_{compression}")():
            raise ValueError(
                f"{compression!r} needs a package that is not installed; run: pip install 'aiokafka[all]'"
            )
        return compression

    @model_validator(mode="after")
    def _belong_together(self) -> KafkaOptions:
        if self.has_tls_files() and not self.tls:
            raise ValueError("'ca' and 'certificate' are for TLS; write tls: true, or remove them")
        if self.sasl is None and (self.user is not None or self.password is not None):
            raise ValueError(
                "'user' and 'password' without 'sasl'; write sasl: SCRAM-SHA-512, or remove them"
            )
        if self.sasl is not None and (self.user is None or self.password is None):
            raise ValueError("'sasl' needs a 'user' and a 'password'; add them")
        return self
