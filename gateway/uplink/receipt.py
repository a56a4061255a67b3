"""A receiver's receipt: what of a hub's streams it has on its disk. On it alone the hub gives its journal free.

A PUBACK says only that the broker has a message; a broker that restarts may have lost it. The receipt comes from the
far end. It carries the whole truth each time, so that one that is lost or comes twice changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.journal.entry import Stream
from gateway.uplink.fields import Json, PayloadError, dumps, loads

RECEIPT_SCHEMA = "wardlink.receipt/1"
MAX_HOLES = 256


@dataclass(frozen=True, slots=True)
class Held:
    """One stream at the receiver: everything up to `high` but the holes, which are (first, last) in order."""

    high: int
    holes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one receiver holds of one hub's journal, durably."""

    hub: str
    receiver: str
    epoch: str
    streams: Mapping[Stream, Held]

    @staticmethod
    def topic(tenant: str, hub: str, receiver: str) -> str:
        """Where it is published; with "+" as the receiver, what a hub subscribes to."""
        return f"wardlink/1/{tenant}/{hub}/receipt/{receiver}"

    def encode(self) -> bytes:
        """The payload."""
        streams: dict[str, Json] = {
            stream.value: {
                "high": held.high,
                "holes": tuple({"first": first, "last": last} for first, last in held.holes),
            }
            for stream, held in self.streams.items()
        }
        return dumps(
            {
                "schema": RECEIPT_SCHEMA,
                "hub": self.hub,
                "receiver": self.receiver,
                "epoch": self.epoch,
                "streams": streams,
            }
        ).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> "Receipt":
        """Raises PayloadError, and nothing else."""
        fields = loads(data)
        schema = fields.text("schema")
        if schema != RECEIPT_SCHEMA:
            raise PayloadError("message.schema", repr(schema[:48]), RECEIPT_SCHEMA)
        streams = fields.object("streams")
        held = {}
        for stream in Stream:
            if streams.has(stream):
                part = streams.object(stream)
                held[stream] = Held(part.integer("high", least=0), part.spans("holes", MAX_HOLES))
        hub, receiver, epoch = fields.text("hub"), fields.text("receiver"), fields.text("epoch")
        return cls(hub, receiver, epoch, held)
