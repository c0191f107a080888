"""Publish records to an MQTT 5 broker with QoS 1.

``write`` returns when the broker has acknowledged every record with a reason code that is no failure.
That means that the broker took responsibility, and no more: what it does with a record depends on
who subscribes. For a subscriber with a persistent session that is away, it queues the record, as many as
its limits allow; without any subscriber it drops the record and says so ("no matching subscribers"),
which is a success here, since MQTT has no other place for it. A broker without persistence
loses its queues when it restarts. Who must not miss anything subscribes before, with a session that
lasts, or reads the history from another sink.

There is no QoS 2. It would de-duplicate one hop within one session; a batch that comes again comes as
new messages all the same, and the client does not look at a refusal in that handshake.

MQTT de-duplicates nothing: readers skip an id they have seen. An account's records are sent one after the
other, so that a failure leaves no hole before a later record (see ``in_turn``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from poller.errors import SinkRejected
from poller.model import Record
from poller.sinks import Channel, SinkOptions
from poller.sinks.in_turn import publish_in_turn
from poller.sinks.messages import Message, message
from poller.sinks.mqtt_connection import Connection, connect, verdict
from poller.sinks.mqtt_options import MqttOptions

WRITE_S = 60.0  # for a batch; delivery's own limit is usually shorter

_REFUSED_FROM = 0x80
_RECORD_REFUSED = {0x95, 0x99}  # packet too large, payload format invalid


class MqttSink:
    """Publishes over one connection, which a write makes anew after it was lost."""

    Options: ClassVar[type[SinkOptions]] = MqttOptions

    def __init__(self, options: MqttOptions) -> None:
        self._options = options
        self._connection: Connection | None = None
        self._is_doubtful = False

    def channel(self) -> Channel:
        """Return the topic and the broker."""
        return Channel(
            protocol="mqtts" if self._options.is_encrypted else "mqtt",
            host=f"{self._options.host}:{self._options.port_number}",
            address=self._options.topic.text,
            content_type=self._options.content_type,
            bindings={"qos": 1, "retain": self._options.retain},
        )

    async def open(self) -> None:
        """Connect.

        Raises:
            SinkUnavailable: the broker does not answer.
            SinkBroken: it refuses us, or a certificate is refused.
        """
        await self._connected()

    async def write(self, batch: Sequence[Record]) -> None:
        """Publish the batch and wait for every acknowledgement.

        Raises:
            SinkUnavailable: a part of the batch was not acknowledged, or refused for now.
            SinkRejected: records that are larger than the broker takes.
            BatchRejected: the broker refused a record in a way that does not tell which.
            SinkBroken: the broker does not let us publish to a topic.
        """
        connection = await self._connected()
        rejected: dict[str, str] = {}

        async def publish(record: Record) -> None:
            if reason := await _refusal(connection, record, self._options):
                rejected[record.id] = reason

        try:
            await connection.attend(
                publish_in_turn(batch, publish, in_flight=connection.in_flight), timeout_s=WRITE_S
            )
        except BaseException:
            # It may be half dead, and what is on its way would get mixed up with the next batch.
            self._is_doubtful = True
            raise
        if rejected:
            raise SinkRejected(f"{len(rejected)} records are refused", rejected=rejected)

    async def close(self) -> None:
        """Drop the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> Connection:
        if self._connection is not None and (self._is_doubtful or self._connection.is_lost):
            await self.close()
        if self._connection is None:
            self._connection = await connect(self._options)
            self._is_doubtful = False
        return self._connection


async def _refusal(connection: Connection, record: Record, options: MqttOptions) -> str:
    """Publish a record; return why it is refused for good, or nothing."""
    sent = message(record, options)
    topic = options.topic.render(record)
    properties = _properties(sent, options)
    # A larger packet would make the broker hang up, again and again.
    size_bytes = _size_bytes(topic, properties, sent.body)
    if size_bytes > connection.largest_bytes:
        return f"a packet of {size_bytes} bytes; the broker takes {connection.largest_bytes}"
    reason = await connection.send(topic, sent.body, properties)
    if reason.value < _REFUSED_FROM:
        return ""
    if reason.value in _RECORD_REFUSED:
        return str(reason)
    raise verdict(reason, f"{topic}: {reason}")


def _properties(sent: Message, options: MqttOptions) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.PayloadFormatIndicator = 1  # UTF-8
    properties.ContentType = sent.content_type
    properties.UserProperty = list(sent.attributes.items())
    if options.expiry is not None:
        properties.MessageExpiryInterval = math.ceil(options.expiry)
    return properties


def _size_bytes(topic: str, properties: Properties, body: bytes) -> int:
    """Return what a packet takes at most: its type and length, topic, number, properties, body."""
    packed: bytes = properties.pack()  # type: ignore[no-untyped-call]
    return 5 + 2 + len(topic.encode()) + 2 + len(packed) + len(body)
