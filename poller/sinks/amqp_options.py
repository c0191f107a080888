"""Options of the ``amqp`` sink, and what its address names."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator
from yarl import URL

from poller.secrets import Secret
from poller.sinks.messages import MessageOptions
from poller.sinks.templates import Template, spelled
from poller.sinks.tls import TlsOptions
from poller.units import Duration

LONGEST_EXPIRY_S = (2**32 - 1) / 1000  # RabbitMQ keeps milliseconds in 32 bits
DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}


class AmqpOptions(MessageOptions, TlsOptions):
    """Options of the ``amqp`` sink."""

    url: Secret = Field(description="amqps://USER:PASSWORD@HOST:5671/VHOST; amqp:// is not encrypted.")
    exchange: str = Field(
        max_length=127,
        pattern=r"^[A-Za-z0-9_.:-]*$",
        description='Where messages are published; "" is the default exchange: the routing key names a queue.',
    )
    routing_key: Annotated[
        Template, AfterValidator(spelled(r"[^\0]*", "a routing key", longest_bytes=255))
    ] = Field(Template("balances.{account}"), description="Routing key of a message, with fields in braces.")
    create: bool = Field(
        False,  # noqa: FBT003  # a field's default
        description="Declare the exchange, durable and of type topic, instead of only looking for it.",
    )
    persistent: bool = Field(True, description="Messages survive a restart of the broker, in durable queues.")  # noqa: FBT003
    expiration: Duration | None = Field(
        None,
        ge=0.001,
        le=LONGEST_EXPIRY_S,
        description="A queue drops a message that nobody took for so long, such as 24h.",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: Secret) -> Secret:
        if url == Secret(""):
            return url  # a stand-in
        try:
            address = URL(url.reveal())
            is_usable = address.scheme in DEFAULT_PORTS and bool(address.host) and address.port != 0
        except ValueError:
            is_usable = False
        # The text of another error would repeat the value.
        if not is_usable:
            raise ValueError("is not an address; write amqps://USER:PASSWORD@HOST:PORT/VHOST")
        if address.query_string or address.fragment:
            raise ValueError(
                "has options behind '?' or '#'; leave them out: TLS is set by 'ca' and 'certificate', "
                "and other characters of a password are written like %3F"
            )
        if len([part for part in address.raw_path.split("/") if part]) > 1:
            raise ValueError("has more than one '/' behind the host; one in a VHOST is written as %2F")
        return url

    @model_validator(mode="after")
    def _fit_together(self) -> AmqpOptions:
        if self.has_tls_files() and self.url.reveal().startswith("amqp:"):
            raise ValueError(
                "'ca' and 'certificate' are for an encrypted connection; write amqps:// in 'url'"
            )
        if self.create and (not self.exchange or self.exchange.startswith("amq.")):
            raise ValueError(
                f"exchange {self.exchange!r} is the broker's own and cannot be created; remove 'create', "
                "or name another"
            )
        return self


def vhost(url: Secret) -> str:
    """Return the virtual host that an address names."""
    return URL(url.reveal()).path.removeprefix("/") or "/"
