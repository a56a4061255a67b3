"""What a simulated hub says, as docs/messages.md has it. Entry n of a stream is a function of n: a journal that costs nothing.

So a hub that was away for hours holds no backlog in memory, and a proof knows every value that must have arrived.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from drivers.assigned import LOINC, UCUM, Code, Unit

Json = dict[str, object]

NS_PER_S = 1_000_000_000
EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
VITALS = (
    (Code.ECG_HEART_RATE, Unit.BEAT_PER_MIN),
    (Code.PULS_OXIM_SAT_O2, Unit.PERCENT),
    (Code.PULS_OXIM_PULS_RATE, Unit.BEAT_PER_MIN),
    (Code.RESP_RATE, Unit.RESP_PER_MIN),
)
"""A monitor's numbers, each once a second."""
WAVEFORM_HZ = 125
PER_SECOND = {"vitals": len(VITALS), "waveform": 1}
"""Entries that a stream grows by in a second."""
EPOCH = "fleet"


def value_of(stream: str, hub: int, sequence: int) -> str:
    """What entry `sequence` of that hub must carry: a number, or its samples in base64."""
    if stream == "vitals":
        return str(60 + (7 * sequence + hub) % 40)
    samples = ((31 * n + sequence + hub) % 4096 for n in range(WAVEFORM_HZ))
    return base64.b64encode(b"".join(n.to_bytes(2, "little") for n in samples)).decode()


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, by both clocks."""

    boottime_ns: int
    wall_ns: int

    def iso(self, boottime_ns: int) -> str:
        """UTC at another time of this boot."""
        wall_ns = self.wall_ns - self.boottime_ns + boottime_ns
        moment = EPOCH_START + timedelta(microseconds=wall_ns // 1000)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Mark:
    """How far a stream reaches: durable, and given free."""

    high_water: int = 0
    released: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """One hub: its name, its number and its key, which the seed decides."""

    number: int
    tenant: str
    seed: int
    id: str = field(init=False)
    key: Ed25519PrivateKey = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"hub-{self.number:06}")
        digest = hashlib.sha256(f"{self.seed}/{self.id}".encode()).digest()
        object.__setattr__(self, "key", Ed25519PrivateKey.from_private_bytes(digest))

    @property
    def verify_key(self) -> str:
        """As it stands in a receiver's [hubs]."""
        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def topic(self, name: str) -> str:
        """Of a stream, of a notice, or the filter of its receipts."""
        return f"wardlink/1/{self.tenant}/{self.id}/{name}"

    def signed(self, topic: str, message: Json) -> bytes:
        """The payload with the signature as its last member, over the topic and the payload without it."""
        text = json.dumps(message, separators=(",", ":")).encode()
        signature = base64.b64encode(self.key.sign(topic.encode() + b"\0" + text))
        return text[:-1] + b',"signature":"' + signature + b'"}'

    def status(self, *, online: bool) -> bytes:
        """The retained birth and farewell, and the will."""
        state = "online" if online else "offline"
        head: Json = {"schema": "wardlink.status/1", "hub": self.id, "state": state}
        devices: Json = {"devices": [{"device": "monitor", "driver": "fleet"}]}
        head |= {"version": "fleet", "epoch": EPOCH}
        return self.signed(self.topic("status"), head | devices)

    def heartbeat(self, boot_id: str, now: Moment, marks: Mapping[str, Mark]) -> bytes:
        """Every stream's mark."""
        streams = {
            stream: {"high_water": mark.high_water, "acknowledged": mark.released}
            for stream, mark in marks.items()
        }
        head: Json = {
            "schema": "wardlink.heartbeat/1",
            "hub": self.id,
            "epoch": EPOCH,
            "boot_id": boot_id,
            "time": now.iso(now.boottime_ns),
            "clock": "synchronised",
            "boottime_ns": now.boottime_ns,
            "wall_ns": now.wall_ns,
            "error_ns": 1_000_000,
        }
        return self.signed(self.topic("heartbeat"), head | {"streams": streams})

    def batch(
        self, boot_id: str, now: Moment, start_ns: int, stream: str, span: range, high_water: int
    ) -> bytes:
        """Entries of one stream; the first of all was determined at `start_ns`."""
        per_second = PER_SECOND[stream]
        entries = []
        for sequence in span:
            at_ns = start_ns + (sequence - 1) // per_second * NS_PER_S
            common = {"sequence": sequence, "device": "monitor", "subject": f"p-{self.number}"}
            times = {"time": now.iso(at_ns), "clock": "synchronised", "boottime_ns": at_ns}
            end = {"validity": "valid", "mode": "test", "origin": "device"}
            entries.append(common | self._observation(stream, sequence) | times | end)
        head: Json = {
            "schema": "wardlink.batch/1",
            "hub": self.id,
            "stream": stream,
            "epoch": EPOCH,
            "first": span.start,
            "count": len(span),
            "high_water": high_water,
            "boot_id": boot_id,
            "clock": {
                "boottime_ns": now.boottime_ns,
                "wall_ns": now.wall_ns,
                "state": "synchronised",
                "error_ns": 1_000_000,
            },
        }
        return self.signed(self.topic(stream), head | {"entries": entries})

    def _observation(self, stream: str, sequence: int) -> Json:
        value = value_of(stream, self.number, sequence)
        if stream == "vitals":
            code, unit = VITALS[(sequence - 1) % len(VITALS)]
            shape: Json = {"shape": "quantity", "value": int(value)}
        else:
            code, unit = Code.ECG_ELEC_POTL_I, Unit.MICRO_VOLT
            period_ns = NS_PER_S // WAVEFORM_HZ
            shape = {"shape": "samples", "samples": value, "width": 2, "period_ns": period_ns}
            shape |= {"scale": 1, "offset": 0}
        head: Json = {"type": "observation", "code": int(code), "name": f"MDC_{code.name}"}
        loinc: Json = {"loinc": LOINC[code]} if code in LOINC else {}
        return head | loinc | shape | {"unit": UCUM[unit], "unit_code": int(unit)}
