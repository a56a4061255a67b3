"""MQTT packets of a client that publishes at QoS 1, in 3.1.1 and 5. Bytes in, values out: no I/O lives here.

Sources: OASIS MQTT 3.1.1 and OASIS MQTT 5.0, chapter 3 of both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MQTT_3_1_1 = 4
MQTT_5 = 5
"""The protocol levels as they stand in CONNECT."""
MAX_PACKET_BYTES = 268_435_455
DEFAULT_RECEIVE_MAXIMUM = 65_535
RECEIVE_MAXIMUM = 0x21
"""The one property that is read: how many publishes may wait for their PUBACK (MQTT 5.0, 3.2.2.3.3)."""
FAILED = 0x80
"""Reason codes from here on are failures."""

_BYTES = {0x01: 1, 0x17: 1, 0x19: 1, 0x24: 1, 0x25: 1, 0x28: 1, 0x29: 1, 0x2A: 1}
_BYTES |= {0x13: 2, RECEIVE_MAXIMUM: 2, 0x22: 2, 0x23: 2}
_BYTES |= {0x02: 4, 0x11: 4, 0x18: 4, 0x27: 4}
_TEXTS = {0x03: 1, 0x08: 1, 0x09: 1, 0x12: 1, 0x15: 1, 0x16: 1, 0x1A: 1, 0x1C: 1, 0x1F: 1, 0x26: 2}
"""Properties by their length in bytes, or by how many strings with a length before them they are (MQTT 5.0, 2.2.2.2)."""


class PacketError(ValueError):
    """The broker sent what is no packet, or none that it may send."""


class Kind(IntEnum):
    """Packet types."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the connection ends without a DISCONNECT."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that came. `code` of a CONNACK, PUBACK, SUBACK or DISCONNECT: 0, or what went wrong."""

    kind: Kind
    packet_id: int = 0
    code: int = 0
    topic: str = ""
    payload: bytes = b""
    receive_maximum: int = DEFAULT_RECEIVE_MAXIMUM


# --- Writing -----------------------------------------------------------------------------------------


def connect(level: int, client_id: str, keepalive_s: int, will: Will | None) -> bytes:
    """CONNECT with a clean session."""
    flags = 0x02 if will is None else 0x02 | 0x04 | 0x08 | 0x20
    none = b"\0" if level == MQTT_5 else b""
    body = _text("MQTT") + bytes((level, flags)) + keepalive_s.to_bytes(2, "big") + none
    body += _text(client_id)
    if will is not None:
        body += none + _text(will.topic) + len(will.payload).to_bytes(2, "big") + will.payload
    return _packet(Kind.CONNECT << 4, body)


def publish(level: int, packet_id: int, topic: str, payload: bytes, *, retain: bool) -> bytes:
    """PUBLISH at QoS 1."""
    head = _text(topic) + packet_id.to_bytes(2, "big") + (b"\0" if level == MQTT_5 else b"")
    return _packet(Kind.PUBLISH << 4 | 0x02 | retain, head + payload)


def subscribe(level: int, packet_id: int, topic_filter: str) -> bytes:
    """SUBSCRIBE to one filter at QoS 1."""
    none = b"\0" if level == MQTT_5 else b""
    body = packet_id.to_bytes(2, "big") + none + _text(topic_filter) + b"\x01"
    return _packet(Kind.SUBSCRIBE << 4 | 0x02, body)


def puback(packet_id: int) -> bytes:
    """PUBACK, success."""
    return _packet(Kind.PUBACK << 4, packet_id.to_bytes(2, "big"))


PINGREQ = bytes((Kind.PINGREQ << 4, 0))
DISCONNECT = bytes((Kind.DISCONNECT << 4, 0))


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _variable(len(body)) + body


def _variable(value: int) -> bytes:
    """A length in 1 to 4 bytes of 7 bits, the lowest first."""
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


# --- Reading -----------------------------------------------------------------------------------------


class Reader:
    """Cuts a byte stream into packets, however it was cut before."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """The packets that are whole now. Raises PacketError for anything that a broker may not send."""
        self._data += data
        while (whole := self._whole()) is not None:
            start, end = whole
            first, body = self._data[0], bytes(self._data[start:end])
            del self._data[:end]
            try:
                yield _read(self._level, first, body)
            except (IndexError, UnicodeDecodeError) as error:
                raise PacketError(f"packet 0x{first:02x}: {error}: {body[:40].hex()}") from None

    def _whole(self) -> tuple[int, int] | None:
        """Where the first packet's body starts and ends; None while some of it is missing."""
        length = 0
        for n, byte in enumerate(self._data[1:5]):
            length |= (byte & 0x7F) << 7 * n
            if byte < 0x80:
                end = 2 + n + length
                return (2 + n, end) if len(self._data) >= end else None
        if len(self._data) >= 5:
            raise PacketError(f"length: got 4 bytes without an end: {self._data[:5].hex()}")
        return None


def _read(level: int, first: int, body: bytes) -> Packet:
    is_5 = level == MQTT_5
    match first >> 4:
        case Kind.CONNACK:
            maximum = _receive_maximum(body[2:]) if is_5 and len(body) > 2 else None
            return Packet(
                Kind.CONNACK, code=body[1], receive_maximum=maximum or DEFAULT_RECEIVE_MAXIMUM
            )
        case Kind.PUBACK:
            return Packet(Kind.PUBACK, _number(body, 0), body[2] if len(body) > 2 else 0)
        case Kind.SUBACK:
            code = body[-1]
            return Packet(Kind.SUBACK, _number(body, 0), code if code >= FAILED else 0)
        case Kind.PUBLISH:
            at = 2 + _number(body, 0)
            topic = body[2:at].decode()
            qos = first >> 1 & 3
            packet_id = _number(body, at) if qos else 0
            at += 2 if qos else 0
            if is_5:
                size, at = _length(body, at)
                at += size
            return Packet(Kind.PUBLISH, packet_id, topic=topic, payload=body[at:])
        case Kind.PINGRESP:
            return Packet(Kind.PINGRESP)
        case Kind.DISCONNECT:
            return Packet(Kind.DISCONNECT, code=body[0] if body else 0)
        case other:
            raise PacketError(f"packet type: got {other}, expected one that a broker sends")


def _number(body: bytes, at: int) -> int:
    return body[at] << 8 | body[at + 1]


def _length(body: bytes, at: int) -> tuple[int, int]:
    """A length and where it ends."""
    value = 0
    for n in range(4):
        value |= (body[at + n] & 0x7F) << 7 * n
        if body[at + n] < 0x80:
            return value, at + n + 1
    raise PacketError(f"length: got 4 bytes without an end: {body[at : at + 4].hex()}")


def _receive_maximum(properties: bytes) -> int | None:
    size, at = _length(properties, 0)
    end = at + size
    while at < end:
        name = properties[at]
        at += 1
        if name == RECEIVE_MAXIMUM:
            return _number(properties, at)
        if name in _BYTES:
            at += _BYTES[name]
        elif name in _TEXTS:
            for _ in range(_TEXTS[name]):
                at += 2 + _number(properties, at)
        else:
            raise PacketError(f"property: got 0x{name:02x}, expected one of MQTT 5.0, 2.2.2.2")
    return None
