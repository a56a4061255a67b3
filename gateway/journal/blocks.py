"""Version 4 of a batch: samples in blocks of a codec, and in each entry how many of them are its own.

It says the same as version 3, bit for bit: every entry keeps its place, and with it its sequence number. No batch needs
another one to be read. The layout is in docs/journal-format.md. The codec is handed in, since who only carries a batch has none.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Protocol, TypeAlias

import cbor2

from drivers.assigned import ECG_CODES, Unit
from drivers.model import SampleArray
from gateway.journal.errors import JournalError
from gateway.journal.segment import FRAME_BYTES

VERSION = 4
HEAD = bytes((0x83, VERSION))
"""What such a batch begins with, and no other: an array of three, the version."""
SAMPLES, CUT = 2, 5
"""Kinds of values: with their samples, and with those of a block."""
BITS = (16, 24)
CHANNELS_MOST = 64
"""What a block takes."""

Signal: TypeAlias = "array[int]"
Item = list[object]


class SampleReader(Protocol):
    """From the bytes of a block to samples."""

    def decode(self, block: bytes, channels: int, rows: int) -> Sequence[Signal]:
        """The signals of a block. Raises ValueError for one of another shape, before it does any work, or no block."""
        ...


class SampleCodec(SampleReader, Protocol):
    """Samples as bytes and back, without loss."""

    def encode(self, signals: Sequence[Signal], bits: int) -> bytes:
        """One block of signals that are equally long, of samples that fit into 16 or 24 bits."""
        ...


class NoSamples:
    """In the place of a codec, for who asks for times alone: each sample is 0."""

    def decode(self, block: bytes, channels: int, rows: int) -> Sequence[Signal]:
        """Looks at none."""
        del block
        return [array("i", bytes(4 * rows))] * channels


def is_packed(records: bytes) -> bool:
    """Whether a batch has its samples in blocks."""
    return records.startswith(HEAD)


# --- Writing -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wave:
    """An entry with samples.

    Attributes:
        fields: of the entry as in version 3: device, subject, kind of record, code, value, time, quality and so on.
        alike: all of it but the samples, their number, their time and their index.
    """

    place: int
    fields: Item
    samples: Signal
    at_ns: int
    period_ns: int
    sqi: object
    alike: bytes

    def cut(self, before: "_Wave | None", *place: int) -> bytes:
        """The entry without its samples: in short where one before it says the rest. `place`: block, channel, step."""
        rows = len(self.samples)
        if before is None or before.alike != self.alike:
            *head, value, at_ns = self.fields[:6]
            cut = [CUT, *place, rows, *_list(value)[2:]]
            return cbor2.dumps([*head, cut, at_ns, *self.fields[6:]])
        later_ns = self.at_ns - before.at_ns - len(before.samples) * before.period_ns
        sqi = [] if repr(self.sqi) == repr(before.sqi) else [self.sqi]
        return cbor2.dumps([self.place - before.place, rows, later_ns, *sqi])


@dataclass(frozen=True, slots=True)
class _Lead:
    """The entries of one signal, and all their samples: numbers of `step`, which fit into so many bits."""

    waves: list[_Wave]
    samples: Signal
    step: int
    bits: int


def pack(entries: Sequence[bytes], codec: SampleCodec) -> bytes | None:
    """A batch of what `encode_entry` made; None where there is nothing to put into blocks."""
    written: list[bytes] = [*entries]
    blocks: list[bytes] = []
    for leads in _together(entries):
        for channel, lead in enumerate(leads):
            for before, wave in zip((None, *lead.waves), lead.waves, strict=False):
                written[wave.place] = wave.cut(before, len(blocks), channel, lead.step)
        blocks.append(codec.encode([lead.samples for lead in leads], leads[0].bits))
    head = HEAD + b"\x9a" + len(written).to_bytes(4, "big")
    return head + b"".join(written) + cbor2.dumps(blocks) if blocks else None


def _together(entries: Sequence[bytes]) -> list[list[_Lead]]:
    """The signals that share a block: of one device, as many samples at one rate, as large; ECG leads by themselves."""
    signals: dict[tuple[object, object, int], list[_Wave]] = {}
    for place, entry in enumerate(entries):
        fields: Item = cbor2.loads(entry)
        if (wave := _wave(place, fields)) is not None:
            signals.setdefault((fields[0], fields[3], wave.period_ns), []).append(wave)
    groups: dict[object, list[_Lead]] = {}
    for (device, code, period_ns), waves in signals.items():
        if (lead := _lead(waves)) is not None:
            key = device, code in ECG_CODES, period_ns, len(lead.samples), lead.bits
            groups.setdefault(key, []).append(lead)
    return [
        group[first : first + CHANNELS_MOST]
        for group in groups.values()
        for first in range(0, len(group), CHANNELS_MOST)
    ]


def _lead(waves: list[_Wave]) -> _Lead | None:
    """None where the samples are larger than a block takes. Some boards send theirs shifted to the left, or scaled."""
    samples = array("i")
    for wave in waves:
        samples.extend(wave.samples)
    step = gcd(*samples) or 1
    if step > 1:
        samples = array("i", [sample // step for sample in samples])
    reach = max(*samples, ~min(samples))
    bits = next((bits for bits in BITS if reach < 1 << (bits - 1)), None)
    return None if bits is None else _Lead(waves, samples, step, bits)


def _wave(place: int, fields: Item) -> _Wave | None:
    match fields:
        case [
            _,
            _,
            0,
            _,
            [2, bytes() as data, int() as width, int() as period_ns, *_],
            int() as at_ns,
            quality,
            *_,
        ]:
            if not data or len(data) % width:
                return None
            judged, sqi = quality, None
            if isinstance(quality, list):
                judged, sqi = [*quality[:2], *quality[3:]], quality[2]
            alike = cbor2.dumps([*fields[:4], _list(fields[4])[2:], judged, *fields[7:]])
            return _Wave(place, fields, _samples(data, width), at_ns, period_ns, sqi, alike)
        case _:
            return None


def _samples(data: bytes, width: int) -> Signal:
    return array("i", SampleArray(data, width, 1, Unit.NOS).samples())


def _list(value: object) -> Item:
    """What the caller knows to be a list."""
    if not isinstance(value, list):
        raise TypeError
    return value


# --- Reading -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Cut:
    """An entry whose samples are in a block: `fields` as in version 3, but for the samples.

    Attributes:
        first: which samples of its channel are its own: `rows` from here on.
    """

    fields: Item
    block: int
    channel: int
    step: int
    rows: int
    width: int
    period_ns: int
    at_ns: int
    first: int = 0

    def following(self, rows: int, later_ns: int, sqi: Sequence[object]) -> "_Cut":
        """An entry that is like this one in all that is not said of it."""
        at_ns = self.at_ns + self.rows * self.period_ns + later_ns
        fields = [*self.fields[:5], at_ns, *self.fields[6:]]
        if sqi:
            match fields[6]:
                case [validity, mode, _, reason]:
                    fields[6] = [validity, mode, *sqi, reason]
                case _:
                    raise JournalError("entry: got an index for a quality that has none")
        return replace(self, fields=fields, rows=rows, at_ns=at_ns)

    def whole(self, samples: Signal) -> Item:
        """The entry as it stands in version 3."""
        if self.step != 1:
            samples = array("i", [sample * self.step for sample in samples])
        data = SampleArray.of(samples, period_ns=1, unit=Unit.NOS, width=self.width).data
        head, value = self.fields[:4], _list(self.fields[4])
        return [*head, [SAMPLES, data, *value[5:]], *self.fields[5:]]


def unpack(items: Sequence[object], blocks: Sequence[object], codec: SampleReader) -> list[object]:
    """The entries of a batch as they stand in version 3. What is none is left as it is.

    Raises:
        JournalError, ValueError, ArithmeticError: entries and blocks do not fit each other, or are none.
    """
    cuts: list[_Cut | None] = []
    for item in items:
        cuts.append(_cut(item, cuts))
    shapes = _shapes([cut for cut in cuts if cut is not None])
    if len(shapes) != len(blocks):
        raise JournalError(f"blocks: got {len(blocks)}, expected {len(shapes)}")
    decoded = []
    for block, (channels, rows) in zip(blocks, shapes, strict=True):
        if not isinstance(block, bytes):
            raise JournalError(f"block: got {type(block).__name__}, expected bytes")
        decoded.append(codec.decode(block, channels, rows))
    return [
        item
        if cut is None
        else cut.whole(decoded[cut.block][cut.channel][cut.first : cut.first + cut.rows])
        for item, cut in zip(items, cuts, strict=True)
    ]


def _cut(item: object, before: Sequence[_Cut | None]) -> _Cut | None:
    match item:
        case [int() as back, int() as rows, int() as later_ns, *sqi] if (
            1 <= back <= len(before) and len(sqi) <= 1 and rows >= 1
        ):
            like = before[-back]
            if like is None:
                raise JournalError(
                    f"entry: got one like that {back} before, expected samples there"
                )
            return like.following(rows, later_ns, sqi)
        case [int(), *_]:
            raise JournalError("entry: got a number first, expected how far back one like it is")
        case [
            str(),
            _,
            0,
            _,
            [5, int() as block, int() as channel, int() as step, int() as rows, *value],
            int() as at_ns,
            _,
            *_,
        ]:
            match value:
                case [(2 | 4) as width, int() as period_ns, *_] if (
                    block >= 0 <= channel and step >= 1 <= rows
                ):
                    place = block, channel, step, rows
                    return _Cut([*item], *place, int(width), period_ns, at_ns)
        case _:
            pass
    return None


def _shapes(cuts: Sequence[_Cut]) -> list[tuple[int, int]]:
    """Channels and rows of each block, and by the way of each entry which samples are its own."""
    size_bytes = sum(cut.rows * cut.width for cut in cuts)
    if size_bytes > FRAME_BYTES:
        raise JournalError(
            f"samples: got {size_bytes} bytes of them, expected at most {FRAME_BYTES}"
        )
    ends: dict[int, dict[int, int]] = {}
    for cut in cuts:
        of_block = ends.setdefault(cut.block, {})
        cut.first = of_block.get(cut.channel, 0)
        of_block[cut.channel] = cut.first + cut.rows
    shapes = []
    for block in range(len(ends)):
        of_block = ends.get(block, {})
        rows = {of_block.get(channel, 0) for channel in range(len(of_block))}
        if len(rows) != 1 or 0 in rows:
            raise JournalError(
                f"block {block}: got signals of {sorted(rows)} samples, expected as many of each"
            )
        shapes.append((len(of_block), rows.pop()))
    return shapes
