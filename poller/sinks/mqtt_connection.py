"""One connection to an MQTT 5 broker, with what the client leaves out: the broker's verdict on each message.

The client takes any acknowledgement for a success, also one that says "not authorised"; it does not
heed the largest packet and the most unacknowledged messages that the broker allows; and it leaves a
connection open whose attempt failed. So publishing goes to the layer below it, by way of a subclass.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from poller.errors import BatchRejected, SinkBroken, SinkError, SinkUnavailable
from poller.sinks.mqtt_options import MqttOptions
from poller.sinks.tls import ssl_context

T = TypeVar("T")

CONNECT_S: Final = 10.0  # each for the TCP connection with TLS, and for the broker's answer
KEEPALIVE_S: Final = 10
CLOSE_S: Final = 1.0
IN_FLIGHT: Final = 100  # messages sent and not yet acknowledged, if the broker allows so many
LARGEST_BYTES: Final = 268_435_455  # of a packet, by the protocol

# Reason codes that do not pass by themselves, with what to repair.
_BROKEN: Final = {
    0x84: "the broker has to speak MQTT 5",
    0x85: "the broker wants another client_id; set one",
    0x86: "repair user and password",
    0x87: "allow this user to connect and to publish to the topic",
    0x8A: "this client is banned; ask whoever runs the broker",
    0x8C: "repair user and password",
    0x8E: "another client has the same client_id; give each poller its own, or none",
    0x90: "the broker does not take this topic; change it",
    0x9A: "the broker keeps no retained messages; remove retain",
    0x9B: "the broker takes no QoS 1",
}
_PROTOCOL_ERROR: Final = 0x82


def verdict(code: ReasonCode | int, text: str = "") -> SinkError:
    """Return what a refusal by the broker means for the batch; whatever is not known may pass by itself."""
    value = code if isinstance(code, int) else code.value
    text = text or (paho.error_string(MQTTErrorCode(value)) if isinstance(code, int) else str(code))
    if not isinstance(code, int) and (remedy := _BROKEN.get(value)):
        return SinkBroken(f"{text}; {remedy}")
    return SinkUnavailable(text)


def meaning(error: BaseException) -> SinkError:
    """Return what an error of the client means."""
    cause = error.__context__ if isinstance(error, aiomqtt.MqttError) else error
    if isinstance(error, aiomqtt.MqttCodeError) and error.rc is not None:
        return verdict(error.rc)
    if isinstance(cause, ssl.SSLError):
        reason = getattr(cause, "verify_message", "") or cause.reason or str(cause)
        if isinstance(cause, ssl.SSLCertVerificationError) or "ALERT" in reason:
            return SinkBroken(f"TLS: {reason}; repair the certificates, or 'ca'")
        return SinkUnavailable(f"TLS: {reason}")
    if isinstance(cause, OSError) and cause.strerror:
        return SinkUnavailable(cause.strerror)
    return SinkUnavailable(str(error) or type(error).__name__)


class Connection(aiomqtt.Client):
    """A connection that knows what became of each message. Make one with ``connect``.

    Attributes:
        largest_bytes: of a packet that the broker takes.
        in_flight: messages that may be unacknowledged.
    """

    def __init__(self, options: MqttOptions) -> None:
        quiet = logging.getLogger(f"{__name__}.client")
        quiet.setLevel(logging.CRITICAL)  # delivery says what fails, once a minute
        password = options.password
        super().__init__(
            options.host,
            options.port_number,
            username=options.user,
            password=None if password is None else password.reveal(),
            identifier=options.client_id or "",
            protocol=aiomqtt.ProtocolVersion.V5,
            timeout=CONNECT_S,
            keepalive=KEEPALIVE_S,
            max_inflight_messages=IN_FLIGHT,
            tls_context=_tls(options) if options.is_encrypted else None,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            logger=quiet,
        )
        self.largest_bytes = LARGEST_BYTES
        self.in_flight = IN_FLIGHT
        self._retain = options.retain
        self._sent: dict[int, asyncio.Future[ReasonCode]] = {}
        self._lost: asyncio.Future[SinkError] = self._loop.create_future()

    @property
    def is_lost(self) -> bool:
        """Whether a new one has to be made."""
        return self._lost.done() or not self._client.is_connected()

    async def send(self, topic: str, body: bytes, properties: Properties) -> ReasonCode:
        """Publish with QoS 1; return the reason code of the acknowledgement."""
        info = self._client.publish(topic, body, 1, self._retain, properties)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise SinkUnavailable(paho.error_string(info.rc))
        acknowledged: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._sent[info.mid] = acknowledged
        try:
            return await acknowledged
        finally:
            self._sent.pop(info.mid, None)

    async def attend(self, work: Awaitable[T], timeout_s: float) -> T:
        """Await work on this connection, no longer than the connection lives, nor than the time-out.

        Raises:
            SinkError: the connection ended, or the time is up.
        """
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self._lost}
        try:
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._lost.result() if self._lost.done() else SinkUnavailable("no answer in time")
        finally:
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_S)

    async def close(self) -> None:
        """Say goodbye and hang up, within a second."""
        if self._client.is_connected():
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.__aexit__(None, None, None), CLOSE_S)
        self.hang_up()
        await asyncio.sleep(0)

    def hang_up(self) -> None:
        """Close the socket at once, whatever state it is in."""
        self._client._sock_close()  # noqa: SLF001  # by the public way it would first wait for the broker
        if self._misc_task is not None:
            self._misc_task.cancel()

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        said: dict[str, int] = {} if properties is None else properties.json()  # type: ignore[no-untyped-call]
        self.largest_bytes = said.get("MaximumPacketSize", LARGEST_BYTES)
        self.in_flight = min(IN_FLIGHT, said.get("ReceiveMaximum", IN_FLIGHT))
        if self._retain and said.get("RetainAvailable", 1) == 0:
            reason_code = ReasonCode(PacketTypes.CONNACK, identifier=0x9A)
        elif said.get("MaximumQoS", 1) == 0:
            reason_code = ReasonCode(PacketTypes.CONNACK, identifier=0x9B)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.done():
            self._connected.set_exception(
                aiomqtt.MqttError("the connection was closed before it was accepted")
            )
        found = verdict(reason_code, f"the connection was lost: {reason_code}")
        if reason_code.value == _PROTOCOL_ERROR and not flags.is_disconnect_packet_from_server and self._sent:
            # Mosquitto refuses what is over its message_size_limit with a code that acknowledgements do
            # not have, and the client gives up on it: without a name, and again at every attempt.
            found = BatchRejected(
                "an answer that MQTT does not know; is a record over the broker's size limit?"
            )
        if not self._lost.done():
            self._lost.set_result(found)
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        if self._disconnected.done():
            self._disconnected.exception()  # it was told above

    def _on_publish(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        acknowledged = self._sent.get(mid)
        if acknowledged is not None and not acknowledged.done():
            acknowledged.set_result(reason_code)


class _Socket(ssl.SSLSocket):
    """One that closes itself when the handshake fails: the client forgets it then."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _tls(options: MqttOptions) -> ssl.SSLContext:
    context = ssl_context(options)
    context.sslsocket_class = _Socket
    return context


async def connect(options: MqttOptions) -> Connection:
    """Return a connection.

    Raises:
        SinkUnavailable: the broker does not answer.
        SinkBroken: it refuses us, or a certificate is refused.
    """
    connection = Connection(options)
    connecting = asyncio.create_task(connection.__aenter__())
    try:
        # A thread of the client's connects; to cancel it would leave a connection that nobody knows.
        await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(lambda _: connection.hang_up())
        raise
    except Exception as error:
        connection.hang_up()
        found = meaning(error)
        raise type(found)(f"{options.host}:{options.port_number}: {found}") from error
    return connection
