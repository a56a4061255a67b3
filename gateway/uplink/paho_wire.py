"""paho-mqtt as the wire and nothing more: MQTT 5 or 3.1.1, one client object for one connection.

Measured on paho 2.2.0, and the reason why window, retry and cursor are ours: it ignores Receive Maximum, floods after
a reconnect, takes a refused PUBACK for a success, waits for ever for a lost one, and leaves Nagle's algorithm on
(20 instead of 3,000 messages of 64 KiB a second). Its callbacks run in its own thread; here they hand over to the
event loop and do nothing else.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.config.broker import Broker
from gateway.config.profile import Protocol
from gateway.uplink.dial import Dialler
from gateway.uplink.refusal import STEP_LIMIT_S, connect_error
from gateway.uplink.signature import signed
from gateway.uplink.tls import is_loopback, tls_context
from gateway.uplink.wire import (
    DEFAULT_RECEIVE_MAXIMUM,
    MAX_PACKET_BYTES,
    Dial,
    Incoming,
    Limits,
    Listener,
    Outgoing,
    Reason,
    Session,
    UplinkError,
)

log = logging.getLogger(__name__)

CONNECT_LIMIT_S = 15.0
"""From name look-up to CONNACK. paho bounds each step from TLS on by `STEP_LIMIT_S`, but not their sum."""
CLOSE_LIMIT_S = 2.0
CONNACK_REASONS = {
    0x84: Reason.PROTOCOL,
    **dict.fromkeys((0x86, 0x87, 0x8A, 0x8C), Reason.NOT_AUTHORISED),
}
"""Unsupported version; bad user name or password, not authorised, banned, bad authentication method.

paho gives the return codes of MQTT 3.1.1 as the same codes of MQTT 5."""
ECHO_HINT = (
    "; under MQTT 3.1.1 this hub must see what it sends come back, for an acknowledgement may be of what was forbidden:"
    " allow it to read its own topics, or use MQTT 5, or delivery.ack = receiver"
)
PROTOCOLS = {Protocol.V5: paho.MQTTv5, Protocol.V311: paho.MQTTv311}


def _connect_properties(session: Session) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.SessionExpiryInterval = session.expiry_s
    properties.ReceiveMaximum = session.receive_maximum
    properties.MaximumPacketSize = session.maximum_packet_bytes
    return properties


class _Client(paho.Client):
    """paho's client whose thread says how it ended; by itself an exception in it is never seen by anyone."""

    ended: Callable[[Exception | None], None]
    dialled: socket.socket
    """Connected already: paho's own way tries the addresses one after the other, and over any interface."""

    def _create_socket_connection(self) -> socket.socket:
        return self.dialled

    def loop_forever(self, *_args: Any, **_kwargs: Any) -> MQTTErrorCode:
        failure: Exception | None = None
        result = MQTTErrorCode.MQTT_ERR_CONN_LOST
        try:
            result = super().loop_forever(retry_first_connection=False)
        except Exception as error:  # noqa: BLE001 - the supervision edge of a foreign thread
            failure = error
        self.ended(failure)
        return result

    def forget(self) -> None:
        """Closes what its thread used, once that has ended: paho leaves two descriptors a connection to the collector."""
        self._reset_sockets()


class PahoWire:
    """A connection over paho-mqtt. Built by `connect`; methods are for the event loop's thread."""

    def __init__(self, broker: Broker, session: Session, listener: Listener) -> None:
        self._broker = broker
        self._is_v5 = broker.protocol is Protocol.V5
        self._session = session
        heeded = [*session.subscribe, *filter(None, [session.may_subscribe])]
        self._filters = [*((name, 1) for name in heeded), *((name, 0) for name in session.echo)]
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Limits] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._abandoned = threading.Event()
        self._gone = False
        self._limits = Limits()
        self._refusal: UplinkError | None = None
        self._client = self._build()

    @property
    def limits(self) -> Limits:
        """What the server allows."""
        return self._limits

    @classmethod
    async def connect(
        cls,
        broker: Broker,
        session: Session,
        listener: Listener,
        *,
        limit_s: float = CONNECT_LIMIT_S,
        dial: Dial | None = None,
    ) -> "PahoWire":
        """Connects and, with a filter, subscribes. Raises UplinkError, and then nothing was published."""
        wire = cls(broker, session, listener)
        _secure(wire._client, broker)
        try:
            async with asyncio.timeout(limit_s):
                wire._start(await (dial or Dialler().dial)(broker.host, broker.port))
                wire._limits = await wire._ready
        except TimeoutError:
            wire.abort()
            where = f"{broker.host}:{broker.port}"
            raise UplinkError(
                Reason.TIMEOUT, f"{where}: got no CONNACK within {limit_s:g} s, expected one"
            ) from None
        except OSError as error:
            wire.abort()
            raise connect_error(broker, error) from error
        except BaseException:
            wire.abort()
            raise
        return wire

    def publish(self, message: Outgoing) -> int:
        """Sends at QoS 1; returns the message id. Raises UplinkError when the connection is gone."""
        if self._gone:
            raise UplinkError(Reason.LOST, "the connection is gone")
        payload = _signed(self._session, message)
        info = self._client.publish(message.topic, payload, qos=1, retain=message.retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise UplinkError(Reason.LOST, f"not sent: {paho.error_string(info.rc)}")
        return info.mid

    def acknowledge(self, message_id: int) -> None:
        """Tells the broker that a message is in safe hands. One that came at QoS 0 has the number 0."""
        if message_id:
            self._client.ack(message_id, 1)

    def unsubscribe(self, topic: str) -> None:
        """Wants no more of it."""
        self._client.unsubscribe(topic)

    async def close(self) -> None:
        """DISCONNECT, so that the broker does not publish the will; at the latest after `CLOSE_LIMIT_S` abort."""
        self._gone = True
        self._client.disconnect()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._ended.wait()
        self.abort()

    def abort(self) -> None:
        """Cuts the connection, so that the broker publishes the will. Safe to call twice."""
        self._gone = True
        self._abandoned.set()
        _cut(self._client.socket())

    # --- Building ------------------------------------------------------------------------------------

    def _build(self) -> _Client:
        session = self._session

        def ended(failure: Exception | None) -> None:
            if not self._hand_over(self._end, failure):
                client.forget()

        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=session.client_id,
            clean_session=None if self._is_v5 else session.expiry_s == 0,
            protocol=PROTOCOLS[self._broker.protocol],
            reconnect_on_failure=False,
            manual_ack=True,
        )
        # 0 is "no limit": the window is ours, and paho's own queue stays empty.
        client.max_inflight_messages = 0
        client.connect_timeout = STEP_LIMIT_S
        client.suppress_exceptions = False
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.ended = ended
        if session.will is not None:
            will = session.will
            client.will_set(will.topic, _signed(session, will), 1, will.retain)
        return client

    def _start(self, sock: socket.socket) -> None:
        broker, session = self._broker, self._session
        sock.settimeout(STEP_LIMIT_S)
        self._client.dialled = sock
        self._client.connect_async(
            broker.host,
            broker.port,
            broker.keepalive_s,
            clean_start=session.expiry_s == 0,
            properties=_connect_properties(session) if self._is_v5 else None,
        )
        self._client.loop_start()

    # --- paho's thread: hand over, nothing else --------------------------------------------------------

    def _hand_over(self, call: Callable[..., None], *arguments: object) -> bool:
        # The loop may be closed already when an abandoned connection attempt ends at last.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)
            return True
        return False

    def _on_socket_open(self, _client: paho.Client, _userdata: object, sock: Any) -> None:
        if self._abandoned.is_set():
            _cut(sock)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        unanswered_ms = 2 * self._broker.keepalive_s * 1000
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unanswered_ms)

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: object,
        _flags: object,
        reason: ReasonCode,
        properties: object,
    ) -> None:
        profile = self._broker.limits
        maximum = getattr(properties, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM)
        packet_bytes = getattr(properties, "MaximumPacketSize", MAX_PACKET_BYTES)
        limits = Limits(
            min(maximum, profile.unacknowledged),
            min(packet_bytes, profile.packet_bytes),
            profile.publishes_per_s,
        )
        if reason.is_failure:
            kind = CONNACK_REASONS.get(reason.value, Reason.REFUSED)
            text = f"CONNACK: got 0x{reason.value:02x} {reason}, expected success"
            hint = "; see broker.protocol" if kind is Reason.PROTOCOL else ""
            error = UplinkError(kind, text + hint)
            self._hand_over(self._fail, error)
        elif not self._filters:
            self._hand_over(self._succeed, limits)
        else:
            self._limits = limits
            client.subscribe(self._filters)

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: object,
    ) -> None:
        for (name, qos), reason in zip(self._filters, reasons, strict=False):
            if not reason.is_failure:
                continue
            text = f"subscription to {name}: got {reason}, expected QoS {qos}"
            if not qos:
                text += ECHO_HINT
            if name != self._session.may_subscribe:
                self._hand_over(self._fail, UplinkError(Reason.NOT_AUTHORISED, text))
                return
            log.warning("uplink: %s; nobody can ask this hub for anything", text)
        self._hand_over(self._succeed, self._limits)

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        mid: int,
        reason: ReasonCode,
        _properties: object,
    ) -> None:
        refusal = f"0x{reason.value:02x} {reason}" if reason.is_failure else None
        self._hand_over(self._listener.answered, mid, refusal)

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        incoming = Incoming(
            message.mid, message.topic, bytes(message.payload), bool(message.retain)
        )
        self._hand_over(self._listener.arrived, incoming)

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: object,
        flags: Any,
        reason: ReasonCode,
        _properties: object,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            text = f"the broker disconnected: 0x{reason.value:02x} {reason}"
            self._hand_over(self._fail, UplinkError(Reason.REFUSED, text))

    # --- The event loop ----------------------------------------------------------------------------------

    def _succeed(self, limits: Limits) -> None:
        if not self._ready.done():
            self._ready.set_result(limits)

    def _fail(self, error: UplinkError) -> None:
        # The thread's end follows and is reported once, with this as its cause.
        self._refusal = self._refusal or error
        _cut(self._client.socket())

    def _end(self, failure: Exception | None) -> None:
        self._ended.set()
        self._client.forget()
        was_gone, self._gone = self._gone, True
        if not self._ready.done():
            error = self._refusal or connect_error(self._broker, failure)
            self._ready.set_exception(error)
            if was_gone:
                self._ready.exception()  # nobody waits any more
        elif not was_gone:
            text = (
                "the connection ended"
                if failure is None
                else f"{type(failure).__name__}: {failure}"
            )
            self._listener.lost(self._refusal or UplinkError(Reason.LOST, text))


def _signed(session: Session, message: Outgoing) -> bytes:
    sign = session.sign
    return message.payload if sign is None else signed(message.topic, message.payload, sign)


def _secure(client: paho.Client, broker: Broker) -> None:
    """TLS, or a broker on this machine. Raises UplinkError."""
    if broker.tls is not None:
        try:
            client.tls_set_context(tls_context(broker.tls))
        except (OSError, ValueError) as error:
            text = f"cannot use the TLS files: {error}; check their paths, rights and form"
            raise UplinkError(Reason.CONFIGURATION, text) from error
    elif not is_loopback(broker.host):
        raise UplinkError(
            Reason.CONFIGURATION,
            f"plain MQTT: got host {broker.host}, expected a loopback address; configure TLS",
        )


def _cut(sock: Any) -> None:
    """Ends both directions below TLS: SSLSocket.shutdown would drop to plain text while the thread still sends."""
    if sock is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
