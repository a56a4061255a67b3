"""ProtoCentral boards that stream OpenView frames: own encoders, and a ledger of all they produced.

Frame: 0A FA, length u16, type 02, payload, 00 0B; little-endian, no checksum, no counter. Payloads are those the
firmwares build (protocentral-healthypi-v3, protocentral_healthypi_v4, protocentral-ads1292r-arduino,
protocentral-afe4490-arduino, protocentral_max86150). The blood-pressure bytes are the firmwares' constants.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.faults import FOREIGN, Batch, Faults
from firmware_sim.ledger import Ledger
from firmware_sim.line import PtyLine
from firmware_sim.patient import Source, Vitals

HEADER, DATA, TRAILER = (0x0A, 0xFA), 0x02, (0x00, 0x0B)
NS_PER_S = 1_000_000_000
BANNER = b"Initialising...\r\nInitialization is complete\r\n"
BURST_S = 0.02
"""USB bridges and kernels hand serial bytes over in bursts of about 16 ms."""
MICROVOLT_PER_COUNT = 2.42 / 6 / 2**23 * 256 * 1e6
"""ADS1292R: 2.42 V reference, gain 6, 24 bits of which the firmware sends the upper 16."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One board's payload.

    Attributes:
        waves: payload field to the source's channel and its counts per unit.
        shift: fields that the firmware shifts left, by how many bits.
        constants: fields that never change.
        no_spo2: what stands in the SpO2 byte when there is no value.
        lead_off, finger_off: status bits.
        blank_off: the firmware sends zeros in the ECG's fields while the leads are off.
    """

    name: str
    baud: int
    rate_hz: float
    payload: np.dtype[np.void]
    waves: Mapping[str, tuple[str, float]]
    shift: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, int] = field(default_factory=dict)
    no_spo2: int = 0
    lead_off: int = 0
    finger_off: int = 0
    blank_off: bool = False

    @property
    def frame(self) -> np.dtype[np.void]:
        """The whole frame as it goes over the wire."""
        parts = [("header", "u1", 2), ("length", "<u2"), ("type", "u1")]
        return np.dtype([*parts, ("payload", self.payload), ("trailer", "u1", 2)])


HEALTHYPI = np.dtype(
    [
        ("ecg", "<i2"),
        ("resp", "<i2"),
        ("infrared", "<i4"),
        ("red", "<i4"),
        ("temp", "<i2"),
        ("resp_rate", "u1"),
        ("spo2", "u1"),
        ("heart_rate", "u1"),
        ("bp_1", "u1"),
        ("bp_2", "u1"),
        ("status", "u1"),
    ]
)
ECG_COUNTS = 1000 / MICROVOLT_PER_COUNT
RESP_COUNTS = 2000.0
LIGHT_22_BIT = 2.0**21
"""AFE4490: 22 bits with sign."""
HEALTHYPI_WAVES = {
    "ecg": ("ecg", ECG_COUNTS),
    "resp": ("resp", RESP_COUNTS),
    "infrared": ("infrared", LIGHT_22_BIT),
    "red": ("red", LIGHT_22_BIT),
}

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "healthypi-v3",
            115200,
            125.0,
            HEALTHYPI,
            HEALTHYPI_WAVES,
            # Left-shifted to find the sign and never shifted back, unlike red.
            shift={"infrared": 10},
            constants={"bp_1": 80, "bp_2": 0},
            no_spo2=25,  # -999 cast to a byte
            lead_off=0x01,
            finger_off=0x02,
        ),
        Layout(
            "healthypi-v4",
            115200,
            125.0,
            HEALTHYPI,
            HEALTHYPI_WAVES,
            constants={"bp_1": 80, "bp_2": 120},
            lead_off=0x03,  # both inputs of channel 1 in the ADS1292R's LOFF_STAT
            blank_off=True,
        ),
        Layout(
            "ads1292r",
            57600,
            125.0,
            np.dtype(
                [
                    ("ecg", "<i2"),
                    ("resp", "<i2"),
                    ("resp_rate", "<i2"),
                    ("heart_rate", "<i2"),
                    ("pad", "u1"),
                ]
            ),
            {"ecg": ("ecg", ECG_COUNTS), "resp": ("resp", RESP_COUNTS)},
        ),
        Layout(
            "afe4490",
            57600,
            100.0,
            np.dtype([("infrared", "<i4"), ("red", "<i4"), ("spo2", "u1"), ("heart_rate", "u1")]),
            {"infrared": ("infrared", LIGHT_22_BIT), "red": ("red", LIGHT_22_BIT)},
        ),
        Layout(
            "max86150",
            57600,
            200.0,
            np.dtype([("ecg", "<i2"), ("infrared", "<u2"), ("red", "<u2")]),
            {
                "ecg": (
                    "ecg",
                    1000 / 5.0,
                ),  # a made-up 5 uV a count: the firmware does not state one
                "infrared": ("infrared", 2.0**16),
                "red": ("red", 2.0**16),
            },
        ),
    )
}


def encoded(layout: Layout, payload: NDArray[np.void]) -> bytes:
    """Frames around payloads, one after the other."""
    frames = np.empty(len(payload), layout.frame)
    frames["header"], frames["trailer"] = HEADER, TRAILER
    frames["length"], frames["type"] = layout.payload.itemsize, DATA
    frames["payload"] = payload
    return frames.tobytes()


def quantised(layout: Layout, samples: Mapping[str, NDArray[np.float64]]) -> NDArray[np.void]:
    """Signals as the board's converter gives them: rounded, clipped; a channel the source lacks stays 0."""
    count = min((len(values) for values in samples.values()), default=0)
    payload = np.zeros(count, layout.payload)
    for name, (channel, counts) in layout.waves.items():
        if channel not in samples:
            continue
        shift = layout.shift.get(name, 0)
        limits = np.iinfo(layout.payload[name])
        whole = np.clip(
            np.rint(samples[channel] * counts), limits.min >> shift, limits.max >> shift
        )
        payload[name] = whole.astype(np.int64) << shift
    for name, value in layout.constants.items():
        payload[name] = value
    return payload


def put_vitals(layout: Layout, payload: NDArray[np.void], vitals: Vitals) -> None:
    """Writes the board's own numbers into every packet of a stretch of at most a second."""
    names = layout.payload.names or ()
    numbers = {
        "temp": (vitals.temp_c and vitals.temp_c * 100, 0),
        "resp_rate": (vitals.resp_rate, 0),
        "spo2": (vitals.spo2, layout.no_spo2),
        "heart_rate": (vitals.heart_rate, 0),
    }
    for name, (value, missing) in numbers.items():
        if name in names:
            payload[name] = missing if value is None else round(value)
    if "status" in names:
        off = 0 if vitals.leads_on else layout.lead_off
        payload["status"] = off | (0 if vitals.finger_on else layout.finger_off)
    if layout.blank_off and not vitals.leads_on:
        for name in ("ecg", "resp", "resp_rate", "heart_rate"):
            payload[name] = 0


def boottime_ns() -> int:
    """CLOCK_BOOTTIME, the clock that the hub stamps arrivals with."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class OpenViewBoard:
    """Streams a source over a line in real time; what the line does not take is lost, and the ledger knows."""

    def __init__(
        self,
        layout: Layout,
        source: Source,
        line: PtyLine,
        *,
        faults: Faults | None = None,
        speed: float = 1.0,
        crystal_ppm: float = 0.0,
        clock_ns: Callable[[], int] = boottime_ns,
        kept_samples: int = 1 << 20,
    ) -> None:
        """Starts nothing.

        Args:
            speed: how many times faster than real time.
            crystal_ppm: how much faster the board's crystal runs than it should; the source does not notice.
            kept_samples: how far back the ledger reaches.
        """
        self.layout = layout
        self.source = source
        self.line = line
        self.faults = faults or Faults(0)
        self.finished = False
        self._clock_ns = clock_ns
        period_ns = NS_PER_S / source.rate_hz / speed / (1 + crystal_ppm * 1e-6)
        self.ledger = Ledger(layout.payload, layout.frame.itemsize, period_ns, kept_samples)
        self._vitals_second = -1
        self._vitals = Vitals()
        self._pulled = False

    def start(self, now_ns: int) -> None:
        """Power on: the boot text, and sample 0 now."""
        self.ledger.start_ns = now_ns
        self._boot()

    def produce(self, now_ns: int) -> Batch:
        """Everything sampled up to `now_ns`, after the faults. Late calls catch up; the samples' times do not move."""
        due = self.ledger.due(now_ns) - self.ledger.produced
        first = self.ledger.produced
        payload = (
            self._payload(first, due) if due > 0 and not self.finished else self._payload(0, 0)
        )
        self.finished = self.finished or len(payload) < due
        self.ledger.append(payload)
        batch = Batch.of_bytes(encoded(self.layout, payload), first * self.layout.frame.itemsize)
        batch = self.faults.apply(batch, now_ns)
        if self.faults.pulled is not self._pulled:
            self._pulled = self.faults.pulled
            if self._pulled:
                self.unplug()
            else:
                self.replug()
        return batch

    def send(self, batch: Batch) -> None:
        """Onto the line, at once."""
        taken = self.line.write(batch.units.tobytes())
        self.ledger.on_wire(batch.origin[:taken])

    async def run(self) -> None:
        """Streams until the source ends or it is cancelled."""
        self.start(self._clock_ns())
        began_ns, bursts = self._clock_ns(), 0
        while not self.finished:
            # To the grid of bursts, so that no delay of one burst adds to the next.
            elapsed_s = (self._clock_ns() - began_ns) / NS_PER_S
            bursts = max(bursts + 1, int(elapsed_s / BURST_S))
            await asyncio.sleep(max(0.0, bursts * BURST_S - elapsed_s))
            batch = self.produce(self._clock_ns())
            if not self.faults.one_by_one:
                self.send(batch)
                continue
            for at in range(len(batch)):
                self.send(batch.take(slice(at, at + 1)))
                await asyncio.sleep(0)

    def unplug(self) -> None:
        """Pulls the plug. The patient's time goes on: what is sampled meanwhile is lost."""
        self.line.unplug()

    def replug(self) -> None:
        """Plugs in again: the board boots."""
        self.line.replug()
        self._boot()

    def _boot(self) -> None:
        text = np.frombuffer(BANNER, np.uint8)
        self.send(Batch(text, np.full(len(text), FOREIGN, np.int64)))

    def _payload(self, first: int, count: int) -> NDArray[Any]:
        payload = quantised(self.layout, self.source.samples(first, count))
        # The board's numbers change once a second of its own time, however the stretch was cut.
        seconds = ((first + np.arange(len(payload))) / self.source.rate_hz).astype(np.int64)
        for part in np.split(np.arange(len(payload)), np.flatnonzero(np.diff(seconds)) + 1):
            if len(part) and seconds[part[0]] != self._vitals_second:
                self._vitals_second = int(seconds[part[0]])
                self._vitals = self.source.vitals(float(self._vitals_second))
            if len(part):
                put_vitals(self.layout, payload[part[0] : part[-1] + 1], self._vitals)
        return payload
