"""The disk budget in days: what the configured devices write, what is promised, and whether it can be kept.

The devices' rows say how many records they bring; what a record takes is found by encoding one. On disk a commit takes
whole blocks of each stream, and that, not the records, is most of what a quiet device costs.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from drivers.assigned import ECG_CODES, BodySite, Code, Unit
from drivers.model import Mode, Observation, Origin, Quality, Quantity, Record, SampleArray
from gateway.config.device import Device
from gateway.config.load import Config
from gateway.journal.entry import Stream
from gateway.journal.journal import MIN_SEGMENTS, SEGMENT_BYTES
from gateway.journal.records import OVERHEAD, encode_entry
from gateway.journal.segment import BLOCK_BYTES, FRAME_BYTES, frame_size
from gateway.journal.state import JournalStatus
from gateway.tables import ConfigError, Fault

COMMITS_HZ = 1.0
"""The intake makes all streams durable about once a second (gateway.intake.COMMIT_NS)."""
DERIVED_HZ: tuple[tuple[frozenset[Code], float], ...] = (
    (ECG_CODES, 1.5 + 1.0),
    (frozenset({Code.PULS_OXIM_PLETH}), 1.0),
    (frozenset({Code.WARDLINK_PPG_INFRARED}), 2.0),
    (frozenset({Code.WARDLINK_PPG_RED}), 1.0),
)
"""What the hub itself derives from a signal with one of these codes: of an ECG an interval for each of 90 beats a minute,
and a rate each second; of a pulse wave a rate each second, of infrared light a perfusion index too; with red light R. A
respiration rate each four seconds does not count beside them."""
RESERVE = 16
"""One part in so many of max_bytes, and at least `MIN_SEGMENTS`, is left to alarms and audit."""
PROMISED = (Stream.VITALS, Stream.WAVEFORM)
SECONDS = {Stream.VITALS: 86_400, Stream.WAVEFORM: 3_600}
"""Of a day, and of an hour: the units in which each promise is made."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a stream gets in a second: records, and their encoded bytes."""

    records_hz: float = 0.0
    bytes_s: float = 0.0

    def __add__(self, other: "Rate") -> "Rate":
        return Rate(self.records_hz + other.records_hz, self.bytes_s + other.bytes_s)

    @property
    def disk_bytes_s(self) -> float:
        """With whole blocks a commit, and with the blocks of a segment that hold its header."""
        if self.records_hz == 0:
            return 0.0
        commits_hz = min(COMMITS_HZ, self.records_hz)
        rest = self.bytes_s / commits_hz
        frames = []
        while rest > 0:
            frames.append(frame_size(OVERHEAD + round(min(rest, FRAME_BYTES - OVERHEAD))))
            rest -= FRAME_BYTES - OVERHEAD
        # At a segment's end there is on average room for half a frame that did not fit.
        usable = SEGMENT_BYTES - 2 * BLOCK_BYTES - (frames[0] - BLOCK_BYTES) / 2
        return commits_hz * sum(frames) * SEGMENT_BYTES / usable


@dataclass(frozen=True, slots=True)
class Left:
    """How long a stream goes on without a network before its oldest records give way.

    Attributes:
        promised_s: what the configuration says must survive.
        bytes_s: on disk: measured of late, else by the devices' rows.
        left_s: None for a stream that gets nothing.
    """

    stream: Stream
    promised_s: int
    bytes_s: float
    measured: bool
    left_s: float | None


def rates(config: Config) -> dict[Stream, Rate]:
    """What the configured devices bring while all of them are well."""
    total = dict.fromkeys(PROMISED, Rate())
    for device in config.devices:
        for stream, rate in _device(device, config.hub.mode):
            total[stream] += rate
    return total


def _device(device: Device, mode: Mode) -> Iterator[tuple[Stream, Rate]]:
    driver = device.driver
    volume = driver.volume(device.options)
    derived_hz = sum(hz for codes, hz in DERIVED_HZ if driver.codes & codes)
    if device.spo2_curve is not None:
        derived_hz += 1.0
    judged = Quality(mode=mode, sqi=0.93) if derived_hz else Quality(mode=mode)
    # As large as they come: a value with a body site, a calibrated sample array.
    value = Observation(
        Code.ECG_HEART_RATE,
        Quantity(Decimal("60.5"), Unit.BEAT_PER_MIN),
        10**15,
        Quality(mode=mode),
        Origin.DEVICE,
        body_site=BodySite.CHEST,
    )
    derived = replace(value, quality=judged, origin=Origin.HUB, body_site=None)
    samples = SampleArray(b"", 4, 8_000_000, Unit.MICRO_VOLT, Decimal("12.309"))
    array = Observation(Code.ECG_ELEC_POTL_II, samples, 10**15, judged)
    values_bytes_s = volume.values_hz * _size(device, value) + derived_hz * _size(device, derived)
    yield Stream.VITALS, Rate(volume.values_hz + derived_hz, values_bytes_s)
    array_bytes_s = volume.arrays_hz * _size(device, array) + volume.samples_bytes_s
    yield Stream.WAVEFORM, Rate(volume.arrays_hz, array_bytes_s)


def _size(device: Device, record: Record) -> int:
    return len(encode_entry(device.id, device.subject, record))


def promised_s(config: Config) -> dict[Stream, int]:
    """What must survive, in seconds."""
    journal = config.journal
    amounts = {Stream.VITALS: journal.vitals_days, Stream.WAVEFORM: journal.waveform_hours}
    return {stream: amounts[stream] * SECONDS[stream] for stream in PROMISED}


def quota_bytes(config: Config) -> dict[Stream, int]:
    """What is promised to each stream, in whole segments: with one that is being filled, and one partly given up."""
    brought, seconds = rates(config), promised_s(config)
    return {
        stream: _segments(brought[stream].disk_bytes_s * seconds[stream]) for stream in PROMISED
    }


def _segments(size_bytes: float) -> int:
    return (-(-int(size_bytes) // SEGMENT_BYTES) + 2) * SEGMENT_BYTES if size_bytes else 0


def usable_bytes(max_bytes: int) -> int:
    """What is there for vitals and waveform."""
    return max_bytes - max(max_bytes // RESERVE, MIN_SEGMENTS * SEGMENT_BYTES)


def check(config: Config) -> None:
    """Raises ConfigError when what is promised does not fit into max_bytes, and says what would."""
    quota, usable = quota_bytes(config), usable_bytes(config.journal.max_bytes)
    needed = sum(quota.values())
    if needed <= usable:
        return
    journal = config.journal
    enough = -(-needed * RESERVE // (RESERVE - 1)) + MIN_SEGMENTS * SEGMENT_BYTES
    raw = {stream: rate.disk_bytes_s for stream, rate in rates(config).items()}
    days, hours = _fitting(config, raw, usable)
    got = f"{_promise(journal.vitals_days, journal.waveform_hours)} = {_bytes(needed)}"
    one_each = ", ".join(
        f"a{'n' if unit == 'hour' else ''} {unit} of {stream} of these devices takes"
        f" {_bytes(raw[stream] * SECONDS[stream])}"
        for stream, unit in ((Stream.VITALS, "day"), (Stream.WAVEFORM, "hour"))
    )
    expected = (
        f"at most {_bytes(usable)}, which max_bytes leaves beside alarms; {one_each}:"
        f" {_promise(days, hours)} would fit, or max_bytes = {enough}"
    )
    raise ConfigError((Fault("journal", got, expected),))


def _fitting(config: Config, disk_bytes_s: Mapping[Stream, float], usable: int) -> tuple[int, int]:
    """Days and hours in the proportion that was asked for, rounded down; what is left over goes to the hours."""
    journal = config.journal
    room = usable - 6 * SEGMENT_BYTES
    day, hour = (disk_bytes_s[stream] * SECONDS[stream] for stream in PROMISED)
    wanted = journal.vitals_days * day + journal.waveform_hours * hour
    part = max(Fraction(0), min(Fraction(1), Fraction(room) / Fraction(wanted)))
    days = int(journal.vitals_days * part)
    if not hour:
        return days, journal.waveform_hours
    return days, max(0, min(journal.waveform_hours, int((room - days * day) / hour)))


def _promise(days: int, hours: int) -> str:
    return f"{days} day{'' if days == 1 else 's'} of vitals and {hours} h of waveform"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 99_500_000 else f"{size / 1e6:.1f} MB"


def disk_shortage(config: Config, directory: Path) -> str:
    """What the disk under the journal lacks for what is promised, in words; "" when it is enough.

    Args:
        directory: the journal's; its parent exists.
    """
    held = sum(path.stat().st_size for path in directory.glob("*/*") if path.is_file())
    needed = sum(quota_bytes(config).values()) + MIN_SEGMENTS * SEGMENT_BYTES
    free = shutil.disk_usage(directory.parent).free
    if held + free >= needed:
        return ""
    journal = config.journal
    return (
        f"disk: got {_bytes(free)} free beside {_bytes(held)} of journal, expected {_bytes(needed)} for"
        f" {_promise(journal.vitals_days, journal.waveform_hours)}; free some, or promise less"
    )


def left(config: Config, status: JournalStatus) -> list[Left]:
    """How long each promised stream goes on from here."""
    quota, brought, seconds = quota_bytes(config), rates(config), promised_s(config)
    streams = {stream.stream: stream for stream in status.streams}
    others = sum(streams[s].size_bytes for s in streams if s not in PROMISED)
    usable = min(usable_bytes(status.max_bytes), status.max_bytes - others)
    held = {s: streams[s].size_bytes for s in PROMISED}
    # Vitals push waveform back to what is promised of it; waveform has what vitals leave, or must be left.
    room = {
        Stream.VITALS: usable - quota[Stream.WAVEFORM],
        Stream.WAVEFORM: usable - max(quota[Stream.VITALS], held[Stream.VITALS]),
    }
    found = []
    for stream in PROMISED:
        measured = streams[stream].bytes_s
        if stream is Stream.WAVEFORM and config.in_blocks and measured is not None:
            # A flat line takes next to nothing: tonight's figure must not promise for tomorrow.
            measured = measured if measured > brought[stream].disk_bytes_s else None
        bytes_s = brought[stream].disk_bytes_s if measured is None else measured
        free = max(0, room[stream] - held[stream])
        left_s = free / bytes_s if bytes_s else None
        found.append(Left(stream, seconds[stream], bytes_s, measured is not None, left_s))
    return found
