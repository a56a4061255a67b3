"""The two small messages beside the batches: the retained status of a hub, and its heartbeat.

The heartbeat carries every stream's high-water mark under the hub's signature. With it the receiver tells a tail
that was cut off from one that was never written.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.clock import Clock, ClockReading, ClockState
from gateway.config.device import Named
from gateway.config.hub import Hub
from gateway.journal.entry import Stream
from gateway.uplink.fields import Fields, Json, PayloadError, dumps, loads
from gateway.uplink.spans import Spans
from gateway.uplink.times import time_fields
from gateway.uplink.wire import Outgoing

STATUS_SCHEMA = "wardlink.status/1"
HEARTBEAT_SCHEMA = "wardlink.heartbeat/1"
MAX_PENDING = 256
"""Spans of one stream in a heartbeat."""


@dataclass(frozen=True, slots=True)
class HubStatus:
    """Whether a hub is connected. Offline is also its will, so a broker says it when the hub cannot.

    Attributes:
        devices: what is configured there; None where the hub does not say, as a sealed one.
    """

    hub: str
    online: bool
    version: str
    epoch: str
    devices: tuple[Named, ...] | None = None

    def encode(self) -> bytes:
        """The payload of the retained message."""
        state = "online" if self.online else "offline"
        head: dict[str, Json] = {"schema": STATUS_SCHEMA, "hub": self.hub, "state": state}
        head |= {"version": self.version, "epoch": self.epoch}
        return dumps(head | device_fields(self.devices)).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> "HubStatus":
        """Raises PayloadError, and nothing else."""
        fields = loads(data)
        _expect(fields.text("schema"), STATUS_SCHEMA)
        state = fields.text("state")
        if state not in {"online", "offline"}:
            raise PayloadError("message.state", repr(state[:48]), "online or offline")
        hub, version, epoch = fields.text("hub"), fields.text("version"), fields.text("epoch")
        devices = None
        if fields.has("devices"):
            rows = fields.objects("devices")
            devices = tuple(Named(row.text("device"), row.text("driver")) for row in rows)
        return cls(hub, state == "online", version, epoch, devices)


def device_fields(devices: tuple[Named, ...] | None) -> dict[str, Json]:
    """The devices as they stand in a status; nothing where the hub does not say."""
    if devices is None:
        return {}
    return {"devices": tuple({"device": row.device, "driver": row.driver} for row in devices)}


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a stream reaches: durable in the journal, and delivered or gone without a hole.

    Attributes:
        pending: what of it is still to come, as (first, last) in order; everything else was delivered or is gone.
    """

    high_water: int
    acknowledged: int
    pending: tuple[tuple[int, int], ...]

    @classmethod
    def in_order(cls, high_water: int, acknowledged: int) -> "Mark":
        """Of one that sends from the first to the last."""
        return cls(high_water, acknowledged, tuple(Spans([(acknowledged + 1, high_water)])))


def mark_fields(mark: Mark) -> dict[str, Json]:
    """A mark as it stands in a heartbeat."""
    return {
        "high_water": mark.high_water,
        "acknowledged": mark.acknowledged,
        "pending": tuple({"first": first, "last": last} for first, last in mark.pending),
    }


def read_mark(fields: Fields) -> Mark:
    """What `mark_fields` made. A hub that says nothing of `pending` sends in order. Raises PayloadError."""
    high_water = fields.integer("high_water", least=0)
    acknowledged = fields.integer("acknowledged", least=0)
    if fields.has("pending"):
        return Mark(high_water, acknowledged, fields.spans("pending", MAX_PENDING))
    return Mark.in_order(high_water, acknowledged)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Every stream's mark at one moment. Two of one boot are ordered by `clock.boottime_ns`."""

    hub: str
    epoch: str
    boot_id: str
    clock: ClockReading
    marks: Mapping[Stream, Mark]

    def encode(self) -> bytes:
        """The payload."""
        return dumps(
            {
                "schema": HEARTBEAT_SCHEMA,
                "hub": self.hub,
                "epoch": self.epoch,
                "boot_id": self.boot_id,
                **time_fields(self.clock.boottime_ns, self.clock),
                "wall_ns": self.clock.wall_ns,
                "error_ns": self.clock.error_ns,
                "streams": {stream: mark_fields(mark) for stream, mark in self.marks.items()},
            }
        ).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> "Heartbeat":
        """Raises PayloadError, and nothing else."""
        fields = loads(data)
        _expect(fields.text("schema"), HEARTBEAT_SCHEMA)
        clock = ClockReading(
            fields.integer("boottime_ns"),
            fields.integer("wall_ns"),
            fields.choice("clock", ClockState),
            fields.integer_or_none("error_ns"),
        )
        streams = fields.object("streams")
        marks = {}
        for stream in Stream:
            if streams.has(stream):
                marks[stream] = read_mark(streams.object(stream))
        hub, epoch, boot_id = fields.text("hub"), fields.text("epoch"), fields.text("boot_id")
        return cls(hub, epoch, boot_id, clock, marks)


def _expect(schema: str, expected: str) -> None:
    if schema != expected:
        raise PayloadError("message.schema", repr(schema[:48]), expected)


class Notices:
    """Writes one hub's notices, and knows its topics."""

    def __init__(
        self, hub: Hub, version: str, epoch: str, devices: tuple[Named, ...] | None = None
    ) -> None:
        self._hub = hub
        self._version = version
        self._epoch = epoch
        self._devices = devices

    def topic(self, name: str) -> str:
        """The topic of a stream, or of a notice."""
        return self._hub.topic(name)

    def status(self, *, online: bool) -> Outgoing:
        """The retained birth, farewell or will."""
        status = HubStatus(self._hub.id, online, self._version, self._epoch, self._devices)
        return Outgoing(self.topic("status"), status.encode(), retain=True)

    def heartbeat(self, clock: Clock, marks: Mapping[Stream, Mark]) -> Outgoing:
        """Where every stream stands now."""
        heartbeat = Heartbeat(self._hub.id, self._epoch, clock.boot_id, clock.read(), marks)
        return Outgoing(self.topic("heartbeat"), heartbeat.encode())
