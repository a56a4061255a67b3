"""Samples in blocks say what they said without, bit for bit; any bytes at all give entries or a JournalError."""

from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from random import Random

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.assigned import ECG_CODES, BodySite, Code, Unit
from drivers.model import Observation, Origin, Quality, Record, SampleArray, Validity
from gateway.journal import blocks
from gateway.journal.blocks import HEAD, NoSamples, pack
from gateway.journal.entry import PackedBatch, Stream
from gateway.journal.errors import JournalError
from gateway.journal.records import decode_batch, encode_entry, join
from gateway.journal.segment import FRAME_BYTES
from gateway.waveform import WaveformCodec
from tests.gateway.journal.builders import LEADS, PERIOD_NS, ecg, open_journal, read_all
from tests.gateway.journal.simulated_disk import SimulatedDisk
from tests.gateway.journal.test_reader import open_reader
from tests.gateway.journal.test_records import EVENTS, OBSERVATIONS, RAWS, TEXT

CODEC = WaveformCodec()

Item = tuple[str, str | None, Record]


@st.composite
def waves(draw: st.DrawFn) -> list[Item]:
    """What devices send in a second: leads in turn, whose times, lengths, scales and qualities may change at any moment."""
    random = Random(draw(st.integers(0, 2**32)))
    items: list[Item] = []
    for device in draw(st.lists(st.sampled_from("ab"), min_size=1, max_size=2, unique=True)):
        at_ns = draw(st.integers(-(2**62), 2**62))
        leads = draw(st.lists(st.sampled_from(LEADS), min_size=1, max_size=3))
        width = draw(st.sampled_from([2, 4]))
        reach = 1 << draw(
            st.sampled_from([4, 15, 23, 24, 31]) if width == 4 else st.sampled_from([4, 15])
        )
        scale = draw(
            st.sampled_from([Decimal("0.5"), Decimal("0.50"), Decimal("-0.0"), Decimal("1E+2")])
        )
        for _ in range(draw(st.integers(1, 4))):
            rows = draw(st.integers(0, 30))
            if draw(st.integers(0, 5)) == 0:
                scale = draw(st.decimals(allow_nan=False, allow_infinity=False))
            quality = draw(
                st.sampled_from([Quality(), Quality(sqi=0.0), Quality(sqi=-0.0), Quality(sqi=0.93)])
                | st.builds(
                    Quality, st.sampled_from(Validity), sqi=st.floats(0, 1), reason=st.none() | TEXT
                )
            )
            step = draw(st.sampled_from([1, 1, 3, 1 << 10])) if width == 4 else 1
            for lead in leads:
                values = [random.randrange(-reach, reach) // step * step for _ in range(rows)]
                samples = SampleArray.of(
                    values, period_ns=PERIOD_NS, unit=Unit.MICRO_VOLT, scale=scale, width=width
                )
                items.append(
                    (
                        device,
                        draw(st.none() | st.just("p-1")),
                        Observation(lead, samples, at_ns, quality),
                    )
                )
            at_ns += rows * PERIOD_NS + draw(st.integers(-1000, 1000))
    return items


ITEMS = waves() | st.lists(
    st.tuples(TEXT, st.none() | TEXT, OBSERVATIONS | EVENTS | RAWS), max_size=3
)


def encoded(items: Sequence[Item]) -> list[bytes]:
    return [encode_entry(*item) for item in items]


@settings(max_examples=100, deadline=None)
@given(st.lists(ITEMS, min_size=1, max_size=3), st.integers(0, 2**32))
def test_what_goes_into_blocks_comes_out_as_it_was(lists: list[list[Item]], seed: int) -> None:
    random = Random(seed)
    items = [item for some in lists for item in some]
    if random.random() < 0.3:
        random.shuffle(items)
    entries = encoded(items)
    packed = pack(entries, CODEC)
    plain = decode_batch(join(entries), 7)
    if packed is None:
        assert not any(
            isinstance(record, Observation)
            and isinstance(record.value, SampleArray)
            and 0 < len(record.value) < 3
            and record.value.width == 2
            for *_, record in items
        )
        return
    found = decode_batch(packed, 7, codec=CODEC)
    assert found == plain
    assert repr(found) == repr(plain)


def entries_of(records: Sequence[Record]) -> list[bytes]:
    return encoded([("patch", "p-1", record) for record in records])


@pytest.mark.parametrize("width", [2, 4])
def test_a_second_of_two_leads_is_a_quarter_of_what_it_was(width: int) -> None:
    entries = entries_of(ecg(width=width))
    packed = pack(entries, CODEC)
    assert packed is not None
    assert len(packed) < 0.35 * len(join(entries))
    (_, items, blocks) = cbor2.loads(packed)
    assert len(blocks) == 1
    assert [len(item) for item in items] == [11, 11, *[3] * 8]


def test_what_differs_in_anything_but_time_and_index_says_all_of_it() -> None:
    wave = ecg(leads=1)[0]
    assert isinstance(wave.value, SampleArray)
    value = wave.value
    for other in (
        replace(wave, value=replace(value, scale=Decimal("4.880"))),
        replace(wave, value=replace(value, offset=Decimal("0.0"))),
        replace(wave, value=replace(value, unit=Unit.NOS)),
        replace(wave, quality=Quality(Validity.INVALID, sqi=0.93, reason="lead_off")),
        replace(wave, quality=Quality()),
        replace(wave, origin=Origin.HUB),
        replace(wave, device_time="12:00"),
        replace(wave, body_site=BodySite.CHEST),
    ):
        packed = pack(entries_of([wave, wave, other]), CODEC)
        assert packed is not None
        assert [len(item) for item in cbor2.loads(packed)[1]] == [11, 3, 11]
        assert [entry.record for entry in decode_batch(packed, 1, codec=CODEC)] == [
            wave,
            wave,
            other,
        ]
    packed = pack(entries_of([wave, replace(wave, quality=Quality(sqi=0.92))]), CODEC)
    assert packed is not None
    assert [len(item) for item in cbor2.loads(packed)[1]] == [11, 4]


def test_ecg_and_light_are_apart_and_devices_too() -> None:
    entries = encoded([(device, None, wave) for device in "ab" for wave in ecg(leads=3)])
    packed = pack(entries, CODEC)
    assert packed is not None
    assert len(cbor2.loads(packed)[2]) == 4
    assert decode_batch(packed, 1, codec=CODEC) == decode_batch(join(entries), 1)


def test_what_needs_more_than_24_bits_stays_outside() -> None:
    samples = SampleArray.of([1 << 23, *range(49)], period_ns=PERIOD_NS, unit=Unit.NOS)
    big = [Observation(LEADS[2], samples, n) for n in range(3)]
    assert pack(entries_of(big), CODEC) is None
    entries = entries_of([*big, *ecg()])
    packed = pack(entries, CODEC)
    assert packed is not None
    assert decode_batch(packed, 1, codec=CODEC) == decode_batch(join(entries), 1)


@pytest.mark.parametrize("step", [2, 3, 1 << 10])
def test_samples_that_are_multiples_are_divided(step: int) -> None:
    """As a HealthyPi sends infrared light: of 22 bits, shifted to the left by ten."""
    samples = SampleArray.of(
        [step * (number % 7 - 1_900_000) for number in range(100)],
        period_ns=PERIOD_NS,
        unit=Unit.NOS,
    )
    entries = entries_of([Observation(LEADS[2], samples, n) for n in range(3)])
    packed = pack(entries, CODEC)
    assert packed is not None
    assert cbor2.loads(packed)[1][0][4][3] == step
    assert len(packed) < 300
    assert decode_batch(packed, 1, codec=CODEC) == decode_batch(join(entries), 1)


def test_more_signals_than_a_block_holds_are_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CHANNELS_MOST", 3)
    samples = SampleArray.of(range(20), period_ns=PERIOD_NS, unit=Unit.NOS)
    codes = [code for code in Code if code not in ECG_CODES][:7]
    entries = encoded([("d", None, Observation(code, samples, 5)) for code in codes])
    packed = pack(entries, CODEC)
    assert packed is not None
    assert len(cbor2.loads(packed)[2]) == 3
    assert decode_batch(packed, 1, codec=CODEC) == decode_batch(join(entries), 1)


# --- Who cannot read it --------------------------------------------------------------------------------

SECOND = pack(entries_of(ecg()), CODEC) or b""


def test_a_reader_without_the_codec_names_the_version() -> None:
    """So does every release that knows no blocks."""
    with pytest.raises(JournalError, match="version 4, expected 1 to 3"):
        decode_batch(SECOND, 1)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_batch_is_refused_or_read(data: st.DataObject) -> None:
    batch = bytearray(SECOND)
    for _ in range(data.draw(st.integers(1, 3))):
        batch[data.draw(st.integers(0, len(batch) - 1))] = data.draw(st.integers(0, 255))
    with suppress(JournalError):
        decode_batch(bytes(batch), 1, codec=CODEC)


def test_a_batch_that_begins_otherwise_is_none() -> None:
    """Who counts how many batches in blocks a message has looks at the first two bytes."""
    assert decode_batch(SECOND, 1, codec=CODEC)
    with pytest.raises(JournalError):
        decode_batch(b"\x83\x18\x04" + SECOND[2:], 1, codec=CODEC)


def test_a_block_of_nobody_is_named() -> None:
    kind, items, blocks = cbor2.loads(SECOND)
    with pytest.raises(JournalError, match="blocks: got 2, expected 1"):
        decode_batch(cbor2.dumps([kind, items, [*blocks, b""]]), 1, codec=CODEC)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_bit_of_a_block_changes_unseen(data: st.DataObject) -> None:
    kind, items, [block] = cbor2.loads(SECOND)
    bit = data.draw(st.integers(0, 8 * len(block) - 1))
    changed = bytearray(block)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(JournalError):
        decode_batch(cbor2.dumps([kind, items, [bytes(changed)]]), 1, codec=CODEC)


class Counting(WaveformCodec):
    """Says what was decoded."""

    decoded = 0

    def decode(self, block: bytes, channels: int, rows: int) -> Sequence["array[int]"]:
        self.decoded += 1
        return super().decode(block, channels, rows)


def _first(items: list[list[object]]) -> list[object]:
    value = items[0][4]
    assert isinstance(value, list)
    return value


@pytest.mark.parametrize(
    "change",
    [
        lambda items, _: items.pop(),
        lambda items, _: items.append([2, 1, 0]),
        lambda items, _: items.append([11, 1, 0]),
        lambda items, _: items.append([0, 1, 0]),
        lambda items, _: items.append([1, 0, 0]),
        lambda items, _: items.append([1, -5, 0]),
        lambda items, _: items[2].__setitem__(0, 0),
        lambda items, _: items[3].__setitem__(0, -1),
        lambda items, _: items[4].__setitem__(1, 51),
        lambda items, _: items[4].__setitem__(0, "2"),
        lambda items, _: items[4].extend([0.5, 0.5]),
        lambda items, _: items.__setitem__(1, ["d", None, 2, "s", b"", 1, 1]),
        lambda items, _: _first(items).__setitem__(1, 1),
        lambda items, _: _first(items).__setitem__(1, -1),
        lambda items, _: _first(items).__setitem__(2, 1),
        lambda items, _: _first(items).__setitem__(2, -1),
        lambda items, _: _first(items).__setitem__(3, 0),
        lambda items, _: _first(items).__setitem__(4, 2**70),
        lambda items, _: _first(items).__setitem__(5, 3),
        lambda items, _: _first(items).__setitem__(6, 1.5),
        lambda _, blocks: blocks.append(blocks[0]),
        lambda _, blocks: blocks.clear(),
        lambda _, blocks: blocks.__setitem__(0, None),
        lambda _, blocks: blocks.__setitem__(0, b""),
    ],
)  # fmt: skip
def test_entries_and_blocks_that_do_not_fit_each_other_are_refused_before_any_work(
    change: Callable[[object, object], object],
) -> None:
    kind, items, blocks = cbor2.loads(SECOND)
    change(items, blocks)
    codec = Counting()
    with pytest.raises(JournalError):
        decode_batch(cbor2.dumps([kind, items, blocks]), 1, codec=codec)
    assert codec.decoded == (blocks == [b""])


def test_a_product_that_is_no_sample_is_refused() -> None:
    kind, items, blocks = cbor2.loads(SECOND)
    items[0][4][3] = 1000
    with pytest.raises(JournalError, match="OverflowError"):
        decode_batch(cbor2.dumps([kind, items, blocks]), 1, codec=CODEC)


def test_an_index_for_a_quality_that_has_none_is_refused() -> None:
    packed = pack(entries_of([replace(wave, quality=Quality()) for wave in ecg(leads=1)]), CODEC)
    assert packed is not None
    kind, items, blocks = cbor2.loads(packed)
    items[1].append(0.5)
    with pytest.raises(JournalError):
        decode_batch(cbor2.dumps([kind, items, blocks]), 1, codec=CODEC)


def test_more_samples_than_a_frame_has_room_for_are_not_unpacked() -> None:
    """A block of a flat line says much in few bytes."""
    rows = FRAME_BYTES // 2
    flat = CODEC.encode([array("i", [5] * (rows + 1))], 16)
    assert len(flat) < 1000
    fields = [
        "d",
        None,
        0,
        int(LEADS[0]),
        [5, 0, 0, 1, rows + 1, 2, 1, int(Unit.NOS), Decimal(1), Decimal(0)],
    ]
    fields += [1, None, "device", None, None, None]
    with pytest.raises(JournalError, match="at most"):
        decode_batch(cbor2.dumps([4, [fields], [flat]]), 1, codec=CODEC)


# --- On the disk ---------------------------------------------------------------------------------------


def test_a_journal_writes_blocks_and_everyone_reads_them_as_they_can() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, codec=CODEC)
    waves = [ecg(first=second, at_ns=second * 10**9) for second in range(3)]
    for second in waves:
        for record in second:
            journal.append("patch", record, "p-1")
        journal.append("belt", Observation(LEADS[2], SampleArray(b"", 2, 1, Unit.NOS), 1))
        journal.commit()
    found = [
        entry.record for entry in read_all(journal, Stream.WAVEFORM) if entry.device == "patch"
    ]
    assert found == [record for second in waves for record in second]
    reader = open_reader(disk)
    one = reader.read(Stream.WAVEFORM, 12)
    assert isinstance(one, PackedBatch)
    assert one.span == (12, 22)
    assert one.records.startswith(HEAD)
    assert (one,) == reader.read_packed(Stream.WAVEFORM, 12, 13, 10**6)
    assert len(one.records) < 900
    assert [entry.sequence for entry in decode_batch(one.records, 12, codec=CODEC)] == [
        *range(12, 23)
    ]
    journal.close()
    again = open_journal(disk)
    assert again.last_ns("patch") == max(record.determined_at_ns for record in waves[-1])
    assert again.recovery.damage == ()


def test_times_alone_need_no_codec() -> None:
    entries = decode_batch(SECOND, 1, codec=NoSamples())
    assert [
        entry.record.determined_at_ns for entry in entries if isinstance(entry.record, Observation)
    ] == [record.determined_at_ns for record in ecg()]


def test_a_frame_is_never_larger_for_its_blocks() -> None:
    """What would not get smaller stays as it is."""
    entries = encoded([("d", None, Observation(LEADS[0], SampleArray(b"abcd", 2, 1, Unit.NOS), 1))])
    assert len(pack(entries, CODEC) or b"") > len(join(entries))
    disk = SimulatedDisk()
    journal = open_journal(disk, codec=CODEC)
    journal.append("d", Observation(LEADS[0], SampleArray(b"abcd", 2, 1, Unit.NOS), 1))
    journal.commit()
    (batch,) = open_reader(disk).read_packed(Stream.WAVEFORM, 0, 1, 10**6)
    assert isinstance(batch, PackedBatch)
    assert batch.records == join(entries)
