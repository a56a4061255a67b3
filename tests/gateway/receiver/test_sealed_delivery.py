"""From a sealed journal on a real disk to lines at the clinic: a true copy, or a loss with a name."""

import asyncio
import base64
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.clock import SystemClock
from gateway.config.broker import Broker
from gateway.journal.entry import SealedBatch, Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.readers import ClinicKey, Opener
from gateway.receiver.checks import Checker
from gateway.receiver.intake import Intake
from gateway.receiver.ledger import Ledger
from gateway.receiver.lines import Lines, load, save
from gateway.receiver.receive import Receiver
from gateway.uplink.hub_wires import hub_wires
from gateway.uplink.notice import Mark, Notices
from gateway.uplink.receipts import Receipts
from gateway.uplink.signature import SIGNATURE_BYTES, VerifyKeys
from gateway.uplink.uplink import Uplink
from gateway.uplink.wire import Incoming
from tests.gateway.journal.builders import MAKERS, SEGMENT, forge_frame
from tests.gateway.receiver.test_delivery import BRISK
from tests.gateway.uplink.bench import (
    HUB,
    KeptStore,
    OneProcess,
    lines_store,
    read_lines,
    running,
    said,
    sealed_slice,
    subscribed,
    until,
)
from tests.gateway.uplink.faultbroker import FaultBroker, Faults

CLINIC = ClinicKey.generate()
KEY = HubKey.generate()
VERIFY = {HUB.id: base64.b64encode(KEY.verify_key).decode()}
RECEIVER_KEY = HubKey.generate()


@contextmanager
def sealed_journal(folder: Path, key: ClinicKey = CLINIC) -> Iterator[Journal]:
    journal = Journal.open(
        folder,
        hub=HUB.id,
        clock=SystemClock(),
        hub_key=KEY,
        max_bytes=64 * SEGMENT,
        readers=(key.reader,),
        segment_bytes=SEGMENT,
    )
    yield journal
    journal.close()


def fill(journal: Journal, count: int) -> None:
    for _ in range(count):
        for stream, make in MAKERS.items():
            journal.append("device", make(journal.high_water(stream) + 1))
        journal.commit()


def damage(folder: Path, stream: Stream, block: int) -> None:
    """Flips a bit of a ciphertext and makes the checksums right, as an accident cannot."""
    [path] = (folder / stream).iterdir()
    segment = bytearray(path.read_bytes())
    frame = segment[block * 4096 : (block + 1) * 4096]
    frame[140] ^= 1
    forge_frame(frame)
    segment[block * 4096 : (block + 1) * 4096] = frame
    path.write_bytes(segment)


def messages(journal: Journal, stream: Stream, after: int = 0) -> Iterator[Incoming]:
    while batch := journal.read(stream, after):
        assert isinstance(batch, SealedBatch)
        topic = f"wardlink/1/{HUB.tenant}/{HUB.id}/{stream}"
        yield said(topic, sealed_slice(batch, after).payload, KEY)
        after = batch.last_sequence


def intake(key: Opener | None = CLINIC, ledger: Ledger | None = None) -> Intake:
    keys = {**VERIFY, "hub-2": VERIFY[HUB.id]}
    return Intake(Checker(HUB.tenant, keys, key), KeptStore(ledger), SystemClock(), grace_s=0.0)


def take(taker: Intake, message: Incoming) -> list[dict[str, Any]]:
    lines = cast("list[dict[str, Any]]", taker.take([message]))
    return [line for line in lines if line["type"] != "clock"]


# --- Message by message --------------------------------------------------------------------------------


def test_sealed_entries_become_the_same_lines(tmp_path: Path) -> None:
    with sealed_journal(tmp_path) as journal:
        fill(journal, 3)
        taker = intake()
        lines = [
            line for message in messages(journal, Stream.VITALS) for line in take(taker, message)
        ]
    assert [(line["type"], line["sequence"]) for line in lines] == [("entry", n) for n in (1, 2, 3)]
    assert lines[0]["record"]["name"] == "MDC_ECG_HEART_RATE"
    assert [str(line["record"]["value"]) for line in lines] == ["1", "2", "3"]
    assert lines[0]["record"]["clock"]
    assert taker.report().rejected == 0


def test_swapped_dropped_and_repeated_messages(tmp_path: Path) -> None:
    with sealed_journal(tmp_path) as journal:
        fill(journal, 4)
        one, two, three, four = messages(journal, Stream.VITALS)
        taker = intake()
        # In another order they are still themselves; one that never came is a gap; an old one is a repeat.
        got = [line["sequence"] for message in (two, one, four) for line in take(taker, message)]
        assert got == [2, 1, 4]
        notices = Notices(HUB, "test", journal.epoch)
        beat = notices.heartbeat(SystemClock(), {Stream.VITALS: Mark.in_order(4, 4)})
        take(taker, said(beat.topic, beat.payload, KEY))
        gaps = [
            line
            for line in cast("list[dict[str, Any]]", taker.name_gaps())
            if line["type"] == "gap"
        ]
        assert [(gap["first"], gap["last"]) for gap in gaps] == [(3, 3)]
        assert take(taker, one) == take(taker, two) == []
        assert [line["type"] for line in take(taker, three)] == ["entry", "gap_closed"]


def test_a_message_of_another_hub_or_stream_is_refused(tmp_path: Path) -> None:
    with sealed_journal(tmp_path) as journal:
        fill(journal, 1)
        [vitals] = messages(journal, Stream.VITALS)
        for topic in ("hub-1/alarm", "hub-2/vitals"):
            payload = vitals.payload[:-SIGNATURE_BYTES]
            moved = said(f"wardlink/1/{HUB.tenant}/{topic}", payload, KEY)
            (line,) = take(intake(), moved)
            assert (line["type"], line["reason"]) == ("rejected", "disagrees")


def test_without_the_right_key_nothing_is_taken_and_nothing_is_lost(tmp_path: Path) -> None:
    with sealed_journal(tmp_path) as journal:
        fill(journal, 1)
        [message] = messages(journal, Stream.VITALS)
    ledger = Ledger()
    for key in (None, ClinicKey.generate()):
        taker = intake(key, ledger)
        (line,) = take(taker, message)
        assert line["reason"] == "no_key"
        assert base64.b64decode(line["payload"]) == message.payload
        assert taker.receipts("r") == []
    assert [line["type"] for line in take(intake(CLINIC, ledger), message)] == ["entry"]


def test_a_frame_changed_on_the_disk_is_named_once_and_for_good(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with sealed_journal(folder) as journal:
        fill(journal, 3)
    damage(folder, Stream.VITALS, 3)
    lines_file = Lines(tmp_path / "lines")
    with sealed_journal(folder) as journal:
        assert journal.recovery.damage == ()
        taker = intake()
        for message in messages(journal, Stream.VITALS):
            lines_file.append(take(taker, message))
        last = list(messages(journal, Stream.VITALS))[-1]
        assert [line["type"] for line in take(taker, last)] == [
            "rejected"
        ]  # again, and no second gap
    lines = read_lines(tmp_path / "lines")
    assert [line["type"] for line in lines] == ["entry", "entry", "rejected", "gap"]
    assert (lines[2]["reason"], lines[3]["cause"]) == ("unreadable", "unreadable")
    assert (lines[3]["first"], lines[3]["last"]) == (3, 3)
    [receipt] = taker.receipts("r")
    assert receipt.streams[Stream.VITALS].high == 3
    # A receiver that was killed right then knows it from its lines.
    again = load(tmp_path / "none", lines_file, 0)
    assert [track.high for track in again.tracks.values()] == [3]
    save(tmp_path / "state", again, lines_file.length)
    assert load(tmp_path / "state", lines_file, 0).tracks == again.tracks
    lines_file.close()


# --- The whole way -------------------------------------------------------------------------------------


def world(
    tmp_path: Path, journal: Journal, broker: Broker, key: ClinicKey | None = CLINIC
) -> tuple[Uplink, Receiver]:
    receivers = {"clinic": base64.b64encode(RECEIVER_KEY.verify_key).decode()}
    receipts = Receipts(HUB, journal.epoch, VerifyKeys(receivers))
    uplink = Uplink(
        OneProcess(journal),
        hub_wires(broker, "hub", KEY.sign, Receipts.filter(HUB)),
        SystemClock(),
        HUB,
        version="test",
        window_bytes=65_536,
        rng=random.Random(1),
        timing=BRISK,
        receipts=receipts,
    )
    receiver = Receiver(
        broker,
        HUB.tenant,
        VERIFY,
        SystemClock(),
        store=lines_store(tmp_path),
        client_id="receiver",
        rng=random.Random(2),
        name="clinic",
        sign=RECEIVER_KEY.sign,
        clinic_key=key,
        grace_s=0.1,
        timing=BRISK,
    )
    return uplink, receiver


def some(receiver: Receiver) -> bool:
    return receiver.report().entries >= 10


@pytest.mark.parametrize("seed", [1, 2])
def test_a_sealed_hub_delivers_through_a_bad_broker_and_a_restart(
    tmp_path: Path, seed: int
) -> None:
    folder = tmp_path / "journal"
    faults = Faults(drop_before=0.02, drop_after=0.02, lose_ack=0.01, refuse=0.03, repeat=0.05)

    async def main() -> None:
        async with FaultBroker(faults, seed) as server:
            broker = Broker("127.0.0.1", server.port)
            for part in (1, 2):
                with sealed_journal(folder) as journal:
                    fill(journal, 15)
                    uplink, receiver = world(tmp_path, journal, broker)
                    async with running(receiver.run(), subscribed(receiver, uplink)):
                        if part == 2:
                            server.faults = Faults()
                            server.kick()
                            assert await uplink.drain(20), uplink.status()
                            assert receiver.report().missing == 0
                        else:
                            await until(partial(some, receiver), "some")

    asyncio.run(main())
    lines = read_lines(tmp_path / "lines.jsonl")
    found: dict[str, list[int]] = {stream: [] for stream in Stream}
    for line in lines:
        assert line["type"] != "rejected"
        assert line.get("cause") != "chain"
        if line["type"] == "entry":
            found[line["stream"]].append(line["sequence"])
    assert {stream: sorted(numbers) for stream, numbers in found.items()} == {
        stream: list(range(1, 31)) for stream in Stream
    }
    with sealed_journal(folder) as journal:
        assert all(journal.acknowledged(stream) == 30 for stream in Stream)


def test_a_cut_tail_is_found_by_the_receiver(tmp_path: Path) -> None:
    """The last frame is cleared on a disk whose state is gone as well: only the receiver remembers."""
    folder = tmp_path / "journal"

    async def main() -> None:
        async with FaultBroker(Faults(), 1) as server:
            broker = Broker("127.0.0.1", server.port)
            with sealed_journal(folder) as journal:
                fill(journal, 5)
                uplink, receiver = world(tmp_path, journal, broker)
                async with running(receiver.run(), subscribed(receiver, uplink)):
                    assert await uplink.drain(20)
            (folder / "state").unlink()
            (folder / "cursor").unlink()
            [path] = (folder / Stream.VITALS).iterdir()
            segment = bytearray(path.read_bytes())
            segment[5 * 4096 : 6 * 4096] = bytes(4096)
            path.write_bytes(segment)
            with sealed_journal(folder) as journal:
                assert journal.high_water(Stream.VITALS) == 4
                uplink, receiver = world(tmp_path, journal, broker)
                async with running(receiver.run(), subscribed(receiver, uplink)):
                    path = tmp_path / "lines.jsonl"
                    await until(
                        lambda: any(line.get("cause") == "rollback" for line in read_lines(path)),
                        "rollback",
                    )

    asyncio.run(main())
    [gap] = [line for line in read_lines(tmp_path / "lines.jsonl") if line["type"] == "gap"]
    assert (gap["stream"], gap["first"], gap["last"], gap["cause"]) == ("vitals", 5, 5, "rollback")


def test_what_does_not_open_at_the_receiver_does_not_hold_the_hub_for_ever(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with sealed_journal(folder) as journal:
        fill(journal, 3)
    damage(folder, Stream.ALARM, 3)

    async def main() -> None:
        async with FaultBroker(Faults(), 1) as server:
            with sealed_journal(folder) as journal:
                uplink, receiver = world(tmp_path, journal, Broker("127.0.0.1", server.port))
                async with running(receiver.run(), subscribed(receiver, uplink)):
                    assert await uplink.drain(20), uplink.status()
                assert journal.acknowledged(Stream.ALARM) == 3

    asyncio.run(main())
    lines = read_lines(tmp_path / "lines.jsonl")
    gaps = [line for line in lines if line["type"] == "gap"]
    assert [(gap["stream"], gap["first"], gap["cause"]) for gap in gaps] == [
        ("alarm", 3, "unreadable")
    ]
