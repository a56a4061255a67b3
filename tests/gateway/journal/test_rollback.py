"""What no hub can see in its own journal, the receiver sees: a cut tail, an old segment, an old disk."""

import base64
from pathlib import Path
from random import Random
from typing import Any, cast

from gateway.config.hub import Hub
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.segment import BLOCK_BYTES
from gateway.receiver.checks import Checker
from gateway.receiver.intake import Intake
from gateway.uplink.notice import Mark, Notices
from gateway.uplink.slices import MAX_PAYLOAD_BYTES, slices
from gateway.uplink.wire import Outgoing
from tests.gateway.journal.builders import (
    DIRECTORY,
    KEY,
    FixedClock,
    open_journal,
    read_all,
    records,
    wave,
)
from tests.gateway.journal.simulated_disk import Directory, SimulatedDisk
from tests.gateway.uplink.bench import KeptStore, said

WAVES = 9
"""Three to a segment."""


class Link:
    """From a journal through the uplink's payloads to the receiver's intake; the hub's clock goes on."""

    def __init__(self) -> None:
        self.hub = Hub("hub-1", "ward", Path("unused"), Path("unused"))
        self.clock = FixedClock()
        verify = base64.b64encode(KEY.verify_key).decode()
        self.intake = Intake(Checker("ward", {"hub-1": verify}), KeptStore(), self.clock, grace_s=0)
        self.sent = 0
        self.lines: list[dict[str, Any]] = []

    def deliver(self, journal: Journal) -> None:
        """Everything behind what was sent, then a heartbeat."""
        notices = Notices(self.hub, "test", journal.epoch)
        while batch := journal.read(Stream.WAVEFORM, self.sent):
            for piece in slices(batch, self.sent, 1 << 30, MAX_PAYLOAD_BYTES):
                self._take(Outgoing(notices.topic(Stream.WAVEFORM), piece.payload))
            self.sent = batch.last_sequence
        mark = Mark.in_order(journal.high_water(Stream.WAVEFORM), self.sent)
        self._take(notices.heartbeat(self.clock, {Stream.WAVEFORM: mark}))

    def _take(self, message: Outgoing) -> None:
        incoming = said(message.topic, message.payload, KEY)
        lines = [*self.intake.take([incoming]), *self.intake.name_gaps()]
        self.lines += cast("list[dict[str, Any]]", lines)

    @property
    def gaps(self) -> list[tuple[str, int, int]]:
        return [
            (line["cause"], line["first"], line["last"])
            for line in self.lines
            if line["type"] == "gap"
        ]

    @property
    def sequences(self) -> list[int]:
        return [line["sequence"] for line in self.lines if line["type"] == "entry"]


def filled() -> tuple[SimulatedDisk, Journal]:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    for number in range(1, WAVES + 1):
        journal.append("ecg", wave(number))
        journal.commit()
    return disk, journal


def copy_of(room: Directory) -> dict[str, bytes]:
    return {name: bytes(inode.cache) for name, inode in room.cache.items()}


def test_a_cut_tail_is_found_by_the_receiver() -> None:
    disk, journal = filled()
    link = Link()
    link.deliver(journal)
    assert (link.sequences, link.gaps) == (list(range(1, WAVES + 1)), [])
    disk.crash(Random(0))
    segments = disk.directories[DIRECTORY / Stream.WAVEFORM].cache
    newest = segments[max(segments)].cache
    newest[3 * BLOCK_BYTES : -BLOCK_BYTES] = bytes(len(newest) - 4 * BLOCK_BYTES)  # two frames
    journal = open_journal(disk, boot_id="boot-2")
    assert journal.high_water(Stream.WAVEFORM) == WAVES - 2
    assert journal.recovery.damage == ()
    link.deliver(journal)
    assert link.gaps == [("rollback", WAVES - 1, WAVES)]


def test_a_disk_from_the_past_is_found_by_the_receiver() -> None:
    disk, journal = filled()
    past = {path: copy_of(room) for path, room in disk.directories.items()}
    journal.append("ecg", wave(10))
    journal.commit()
    link = Link()
    link.deliver(journal)
    disk.crash(Random(0))
    for path, files in past.items():
        room = disk.directories[path]
        for name in room.cache.keys() - files.keys():
            del room.cache[name]
        for name, data in files.items():
            room.cache[name].cache[:] = data
    link.deliver(open_journal(disk, boot_id="boot-2"))
    assert link.gaps == [("rollback", WAVES + 1, WAVES + 1)]


def test_an_old_segment_put_back_brings_nothing_back() -> None:
    disk, journal = filled()
    room = disk.directories[DIRECTORY / Stream.WAVEFORM]
    past = copy_of(room)
    oldest = min(past)
    journal.acknowledge(Stream.WAVEFORM, WAVES)
    for number in range(WAVES + 1, WAVES + 4):
        journal.append("ecg", wave(number))
        journal.commit()
    journal.close()
    disk.create(DIRECTORY / Stream.WAVEFORM / oldest, len(past[oldest]))
    room.cache[oldest].cache[:] = past[oldest]  # under its own name: below the cursor
    journal = open_journal(disk, boot_id="boot-2")
    assert journal.acknowledged(Stream.WAVEFORM) == WAVES
    found = records(read_all(journal, Stream.WAVEFORM, WAVES))
    assert found == {n: wave(n) for n in range(WAVES + 1, WAVES + 4)}
    assert journal.recovery.damage == ()
    journal.close()
    kept = min(name for name in room.cache if name != oldest)
    room.cache[kept].cache[:] = past[oldest]  # in the place of another
    journal = open_journal(disk, boot_id="boot-3")
    found = records(read_all(journal, Stream.WAVEFORM, WAVES))
    assert found == {}
    damage = [*journal.recovery.damage, *journal.take_damage()]
    assert [(d.first_sequence, d.last_sequence) for d in damage] == [(WAVES + 1, WAVES + 3)]
