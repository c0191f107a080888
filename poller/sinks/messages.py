"""What a record looks like on a bus: the record itself, or a CloudEvent around it.

``json`` is the record's own bytes. ``cloudevents`` is CloudEvents 1.0 in its structured mode, one JSON
object with the record as its ``data``; ``cloudevents-binary`` leaves the record as it is and puts
the event's attributes into headers, for protocols that have them. Either way the record's bytes are
not written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import orjson
from pydantic import Field

from poller.model import Kind, Record
from poller.sinks import SinkOptions

JSON = "application/json"
CLOUDEVENT_JSON = "application/cloudevents+json"

Format = Literal["json", "cloudevents", "cloudevents-binary"]


class MessageOptions(SinkOptions):
    """Options of every sink that sends messages."""

    format: Format = Field(
        "json",
        description="json: the record; cloudevents: an event around it; cloudevents-binary: its attributes as headers.",
    )
    source: str = Field(
        "/poller",
        min_length=1,
        max_length=256,
        pattern=r"^[A-Za-z0-9/:._~%#?&=+@-]+$",
        description="The CloudEvents attribute of that name: which poller it was.",
    )

    @property
    def content_type(self) -> str:
        """Media type of a message's body."""
        return CLOUDEVENT_JSON if self.format == "cloudevents" else JSON


@dataclass(frozen=True, slots=True)
class Message:
    """A record on its way.

    Attributes:
        attributes: of a CloudEvent in binary mode, to be sent as headers by the protocol's own binding,
            ``datacontenttype`` aside; otherwise ``id``, ``schema``, ``account`` and ``sequence``, for
            whoever routes without parsing. ASCII, all of them.
    """

    body: bytes
    content_type: str
    attributes: Mapping[str, str]


def message(record: Record, options: MessageOptions) -> Message:
    """Return what to send for a record."""
    if options.format == "json":
        return Message(record.payload, JSON, identity(record))
    event = {
        "specversion": "1.0",
        "id": record.id,
        "source": options.source,
        "type": record.kind.schema,
        "subject": record.account,
        "time": record.document["observed_at" if record.kind is Kind.SNAPSHOT else "since"],
        "sequence": str(record.sequence),
        "partitionkey": record.account,
    }
    if options.format == "cloudevents-binary":
        return Message(record.payload, JSON, event)
    body = orjson.dumps({**event, "datacontenttype": JSON, "data": orjson.Fragment(record.payload)})
    return Message(body, CLOUDEVENT_JSON, identity(record))


def identity(record: Record) -> dict[str, str]:
    """Return what tells a record apart, as texts."""
    return {
        "id": record.id,
        "schema": record.kind.schema,
        "account": record.account,
        "sequence": str(record.sequence),
    }
