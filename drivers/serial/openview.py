"""ProtoCentral OpenView serial frames: one session, a table of boards.

Frame: 0A FA, length u16, type, payload, 00 0B; little-endian, no checksum, no counter. Layouts are those that the
firmwares send (protocentral-healthypi-v3, protocentral_healthypi_v4, protocentral-ads1292r-arduino,
protocentral-afe4490-arduino, protocentral_max86150), where the OpenView programs read some of them differently.
A flipped bit inside a frame cannot be seen. The blood-pressure bytes of HealthyPi are constants and are not read.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import partial

from drivers.assigned import Code, Unit
from drivers.contract import (
    Driver,
    Integrity,
    Malformed,
    Option,
    Output,
    Resume,
    SerialLink,
    Verified,
    Volume,
)
from drivers.framing import Framer, Junk
from drivers.model import (
    GOOD,
    Event,
    EventKind,
    Observation,
    Quality,
    Quantity,
    SampleArray,
    Special,
    Validity,
)
from drivers.sampleclock import SampleClock

HEADER, TRAILER, DATA = b"\x0a\xfa", b"\x00\x0b", 0x02
NS_PER_S = 1_000_000_000
BLOCKS_PER_S = 5
"""Samples travel in blocks of a fifth of a second: small enough to be live, large enough to be cheap."""
FLUSH_NS = NS_PER_S

MISSING_RATE = frozenset({0, 255})
MISSING_SPO2 = frozenset({0, 127, *range(101, 256)})
NO_SIGNAL = Quality(Validity.INVALID, reason="no_signal")
LEAD_OFF = Quality(Validity.INVALID, reason="lead_off")


@dataclass(frozen=True, slots=True)
class Wave:
    """A sample in every packet. `off_mask`: bits of the status byte that mean its sensor is not attached."""

    layout: str
    at: int
    code: Code
    off_mask: int = 0

    @property
    def width(self) -> int:
        """Bytes a sample takes in a SampleArray: 2 only where every value fits 16 bits with sign."""
        return 2 if self.layout == "<h" else 4


@dataclass(frozen=True, slots=True)
class Vital:
    """A number that the board repeats in every packet; raw values in `missing` mean that there is none."""

    layout: str
    at: int
    code: Code
    unit: Unit
    missing: frozenset[int]
    decimals: int = 0
    off_mask: int = 0


@dataclass(frozen=True, slots=True)
class Board:
    """What one board puts into its packet. `rate_hz` None: its firmware does not fix one."""

    name: str
    title: str
    baud: int
    length: int
    rate_hz: int | None
    waves: tuple[Wave, ...]
    vitals: tuple[Vital, ...] = ()
    status_at: int | None = None


def _healthypi(
    name: str, title: str, ecg_off: int, ppg_off: int, missing_spo2: frozenset[int]
) -> Board:
    return Board(
        name,
        title,
        baud=115200,
        length=20,
        rate_hz=125,
        waves=(
            Wave("<h", 0, Code.ECG_ELEC_POTL, ecg_off),
            Wave("<h", 2, Code.IMPED_TTHOR, ecg_off),
            Wave("<i", 4, Code.WARDLINK_PPG_INFRARED, ppg_off),
            Wave("<i", 8, Code.WARDLINK_PPG_RED, ppg_off),
        ),
        vitals=(
            Vital("<h", 12, Code.TEMP_BODY, Unit.DEGC, frozenset({0}), decimals=2),
            Vital("<B", 14, Code.RESP_RATE, Unit.RESP_PER_MIN, MISSING_RATE, off_mask=ecg_off),
            Vital("<B", 15, Code.PULS_OXIM_SAT_O2, Unit.PERCENT, missing_spo2, off_mask=ppg_off),
            Vital("<B", 16, Code.ECG_HEART_RATE, Unit.BEAT_PER_MIN, MISSING_RATE, off_mask=ecg_off),
        ),
        status_at=19,
    )


BOARDS = (
    # The v3 firmware casts its "no value" of -999 to a byte: 25.
    _healthypi("healthypi-v3", "ProtoCentral HealthyPi v3", 0x01, 0x02, MISSING_SPO2 | {25}),
    _healthypi("healthypi-v4", "ProtoCentral HealthyPi v4", 0x1F, 0x00, MISSING_SPO2),
    Board(
        "ads1292r",
        "ProtoCentral ADS1292R (ECG and respiration)",
        baud=57600,
        length=9,
        rate_hz=125,
        waves=(Wave("<h", 0, Code.ECG_ELEC_POTL), Wave("<h", 2, Code.IMPED_TTHOR)),
        vitals=(
            Vital("<h", 4, Code.RESP_RATE, Unit.RESP_PER_MIN, MISSING_RATE),
            Vital("<h", 6, Code.ECG_HEART_RATE, Unit.BEAT_PER_MIN, MISSING_RATE),
        ),
    ),
    Board(
        "afe4490",
        "ProtoCentral AFE4490 (pulse oximeter)",
        baud=57600,
        length=10,
        rate_hz=None,
        waves=(Wave("<i", 0, Code.WARDLINK_PPG_INFRARED), Wave("<i", 4, Code.WARDLINK_PPG_RED)),
        vitals=(
            Vital("<B", 8, Code.PULS_OXIM_SAT_O2, Unit.PERCENT, MISSING_SPO2),
            Vital("<B", 9, Code.PULS_OXIM_PULS_RATE, Unit.BEAT_PER_MIN, MISSING_RATE),
        ),
    ),
    Board(
        "max86150",
        "ProtoCentral MAX86150 (ECG and PPG)",
        baud=57600,
        length=6,
        rate_hz=None,
        waves=(
            Wave("<h", 0, Code.ECG_ELEC_POTL),
            Wave("<H", 2, Code.WARDLINK_PPG_INFRARED),
            Wave("<H", 4, Code.WARDLINK_PPG_RED),
        ),
    ),
)


class OpenViewSession:
    """Collects samples into blocks, passes the board's own numbers on once a second."""

    def __init__(self, board: Board, options: Mapping[str, object]) -> None:
        uv, lead = options.get("uv_per_count"), options.get("lead")
        rate = _rate_of(board, options)
        self._board = board
        self._period_ns = round(NS_PER_S / rate)
        self._block = max(1, round(rate / BLOCKS_PER_S))
        self._vitals_every = max(1, round(rate))
        self._uv = uv if isinstance(uv, Decimal) else None
        self._lead = lead if isinstance(lead, Code) else Code.ECG_ELEC_POTL
        self._framer = Framer(HEADER, TRAILER, {DATA: board.length})
        self._clock = SampleClock(self._period_ns)
        self._columns: tuple[list[int], ...] = tuple([] for _ in board.waves)
        self._status = 0
        self._first_ns = 0
        self._first_arrival_ns = 0
        self._packets = 0
        self._ends_ns: int | None = None
        self._gap: tuple[str, int | None, int | None] | None = None
        self._unknown: set[Code] = set()

    def start(self, now_ns: int, resume: Resume) -> Iterable[Output]:
        """Nothing to ask for: these boards stream by themselves."""
        del now_ns, resume
        return ()

    def receive(self, source: str, data: bytes, now_ns: int) -> Iterable[Output]:
        """Bytes in any cutting; the records depend on the bytes alone, their times also on `now_ns`."""
        del source
        for part in self._framer.feed(data):
            if isinstance(part, Junk):
                yield from self._junk(part)
            else:
                yield from self._packet(part.payload, now_ns)

    def timeout(self, now_ns: int) -> Iterable[Output]:
        """Gives out a block that the line has stopped filling."""
        del now_ns
        return self._flush()

    def deadline(self) -> int | None:
        """A second after the first sample of an unfinished block."""
        return self._first_arrival_ns + FLUSH_NS if self._columns[0] else None

    def _junk(self, junk: Junk) -> Iterator[Output]:
        streaming = self._ends_ns is not None
        reason = "resync" if streaming else "before_stream"
        yield Malformed(reason, junk.data, f"got {junk.count} bytes that are part of no frame")
        if streaming:
            yield from self._break("resync", None)

    def _break(self, reason: str, lost: int | None) -> Iterator[Output]:
        yield from self._flush()
        self._gap = (reason, self._ends_ns, lost)
        self._clock.restart()

    def _packet(self, payload: bytes, now_ns: int) -> Iterator[Output]:
        taken_ns = self._clock.next(now_ns)
        if self._gap is not None:
            reason, from_ns, lost = self._gap
            self._gap = None
            yield Event(
                EventKind.GAP, now_ns, reason, from_ns=from_ns, until_ns=taken_ns, lost=lost
            )
        status = payload[self._board.status_at] if self._board.status_at is not None else 0
        if status != self._status:
            yield from self._flush()
            self._status = status
        if not self._columns[0]:
            self._first_ns, self._first_arrival_ns = taken_ns, now_ns
        for wave, column in zip(self._board.waves, self._columns, strict=True):
            column.append(struct.unpack_from(wave.layout, payload, wave.at)[0])
        self._ends_ns = taken_ns + self._period_ns
        if len(self._columns[0]) >= self._block:
            yield from self._flush()
        if self._packets % self._vitals_every == 0:
            yield from self._vitals(payload, taken_ns)
        self._packets += 1
        if lost := self._clock.slipped():
            yield from self._break("slip", lost)

    def _flush(self) -> Iterator[Output]:
        if not self._columns[0]:
            return
        for wave, column in zip(self._board.waves, self._columns, strict=True):
            is_ecg = wave.code is Code.ECG_ELEC_POTL
            calibrated = is_ecg and self._uv is not None
            samples = SampleArray.of(
                column,
                period_ns=self._period_ns,
                unit=Unit.MICRO_VOLT if calibrated else Unit.NOS,
                scale=self._uv if calibrated and self._uv is not None else Decimal(1),
                width=wave.width,
            )
            quality = LEAD_OFF if self._status & wave.off_mask else GOOD
            code = self._lead if is_ecg else wave.code
            column.clear()
            yield Observation(code, samples, self._first_ns, quality)

    def _vitals(self, payload: bytes, taken_ns: int) -> Iterator[Output]:
        for vital in self._board.vitals:
            (raw,) = struct.unpack_from(vital.layout, payload, vital.at)
            if raw in vital.missing or self._status & vital.off_mask:
                # "Unknown" is said once, when it begins.
                if vital.code not in self._unknown:
                    self._unknown.add(vital.code)
                    quantity = Quantity(Special.UNKNOWN, vital.unit)
                    yield Observation(vital.code, quantity, taken_ns, NO_SIGNAL)
                continue
            self._unknown.discard(vital.code)
            quantity = Quantity(Decimal(raw).scaleb(-vital.decimals), vital.unit)
            yield Observation(vital.code, quantity, taken_ns)


def _rate_of(board: Board, options: Mapping[str, object]) -> Fraction:
    rate_hz = options.get("rate_hz")
    return rate_hz if isinstance(rate_hz, Fraction) else Fraction(board.rate_hz or 1)


def _volume(board: Board, options: Mapping[str, object]) -> Volume:
    rate = _rate_of(board, options)
    return Volume(
        values_hz=len(board.vitals),
        arrays_hz=len(board.waves) * float(rate / max(1, round(rate / BLOCKS_PER_S))),
        samples_bytes_s=float(rate) * sum(wave.width for wave in board.waves),
    )


def _rate(value: object) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1000:
        raise ValueError
    return Fraction(str(value))


def _scale(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError  # noqa: TRY004 - the configuration collects one kind of error
    try:
        scale = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError from error
    if not scale.is_finite() or scale <= 0:
        raise ValueError
    return scale


LEADS = {"I": Code.ECG_ELEC_POTL_I, "II": Code.ECG_ELEC_POTL_II}


def _lead(value: object) -> Code:
    if not isinstance(value, str) or value not in LEADS:
        raise ValueError
    return LEADS[value]


def _options(board: Board) -> tuple[Option, ...]:
    has_ecg = any(wave.code is Code.ECG_ELEC_POTL for wave in board.waves)
    rate = Option(
        "rate_hz",
        "packets a second, as set in the board's firmware",
        "a number from 1 to 1000",
        _rate,
        required=board.rate_hz is None,
    )
    ecg = (
        Option(
            "uv_per_count",
            "microvolt for one count of the ECG; without it the unit is unknown, and said to be",
            "a number above 0",
            _scale,
        ),
        Option("lead", "the ECG lead that the electrodes form", 'one of "I", "II"', _lead),
    )
    return (rate, *ecg) if has_ecg else (rate,)


def _driver(board: Board) -> Driver:
    codes = {wave.code for wave in board.waves} | {vital.code for vital in board.vitals}
    if Code.ECG_ELEC_POTL in codes:
        codes |= set(LEADS.values())
    return Driver(
        name=board.name,
        title=board.title,
        link=SerialLink(board.baud),
        session=partial(OpenViewSession, board),
        codes=frozenset(codes),
        verified=Verified.VECTORS,
        integrity=Integrity.FRAMING,
        source="the board's firmware, as published by ProtoCentral",
        buffer_bytes=8 * 1024,
        silence_ns=3 * NS_PER_S,
        volume=partial(_volume, board),
        options=_options(board),
    )


DRIVERS = tuple(_driver(board) for board in BOARDS)
