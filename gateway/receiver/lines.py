"""JSON lines as a store: the lines, and the ledger beside them. One process.

The lines are the truth. The state file holds the ledger as it was at a stated length of the lines; what was written
after that is read again at the start. So a receiver that was killed at any moment knows exactly what it has written.
"""

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from gateway.clock import Clock
from gateway.journal.entry import Stream
from gateway.receiver.clocks import boot_fields, read_boot, replay_clock, replay_entry
from gateway.receiver.ledger import Cause, Key, Ledger, Span
from gateway.receiver.state import key_fields, read_frame, read_key, read_track, track_fields
from gateway.receiver.store import Line, SoleStore, StoreError
from gateway.timeline import Timeline
from gateway.uplink.fields import Fields, Json, PayloadError, dumps, loads
from gateway.uplink.notice import read_mark
from gateway.uplink.spans import Spans

STATE_SCHEMA = "wardlink.receiver/1"


class Lines:
    """An append-only file of JSON lines. A line that was torn by a crash is cut off: it was never acknowledged."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("ab+", buffering=0)
        self._cut_torn_line()
        self.unsynced = False

    def _cut_torn_line(self) -> None:
        size = end = self._file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65_536)
            self._file.seek(start)
            newline = self._file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            self._file.truncate(end)

    @property
    def name(self) -> str:
        """Of the file."""
        return self._path.name

    @property
    def length(self) -> int:
        """In bytes."""
        return self._file.seek(0, os.SEEK_END)

    def read(self, offset: int) -> Iterable[bytes]:
        """The lines from `offset` on, or from the start where the file is shorter (it was replaced)."""
        with self._path.open("rb") as reader:
            reader.seek(offset if offset <= self.length else 0)
            yield from reader

    def cut(self, length: int) -> None:
        """Back to an earlier length."""
        self._file.truncate(length)

    def append(self, lines: Iterable[Line]) -> None:
        """In the hands of the kernel when it returns: the end of this process does not lose them."""
        data = b"".join(dumps(line).encode("ascii") + b"\n" for line in lines)
        view = memoryview(data)
        while view:
            self.unsynced = True
            view = view[self._file.write(view) :]

    def sync(self) -> None:
        """On the disk when it returns: a power cut does not lose them."""
        os.fdatasync(self._file.fileno())
        self.unsynced = False

    def close(self) -> None:
        """Safe to call twice."""
        self._file.close()


class LinesStore(SoleStore):
    """A file of lines and a state file. Committed means in the hands of the kernel; `sync` puts it on the disk."""

    def __init__(self, lines_file: Path, state_file: Path, clock: Clock) -> None:
        """Opens the files, so that a fault of theirs is seen before anything is received.

        Raises:
            OSError: a file cannot be used.
            PayloadError: the state file is damaged.
        """
        self._lines = Lines(lines_file)
        self._state_file = state_file
        super().__init__(clock, load(state_file, self._lines, clock.boottime_ns()))

    @property
    def unsynced(self) -> bool:
        """Whether a power cut may lose lines."""
        return self._lines.unsynced

    def write(self, lines: Sequence[Line], changed: Ledger) -> None:
        """All of them or none: what a full disk took of them is cut off again. The lines tell the ledger."""
        del changed
        length = self._lines.length
        try:
            self._lines.append(lines)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._lines.cut(length)
            raise StoreError(f"{self._lines.name}: {error.strerror or error}") from error

    def sync(self) -> None:
        """Lines first: a state file that knew more than the lines would hide a loss.

        Raises:
            OSError: the disk failed. There is no second try: the kernel tells such a failure once, and then forgets.
            StoreError: no state file now. The lines are safe, and the next state file knows them.
        """
        self._lines.sync()
        try:
            save(self._state_file, self.ledger, self._lines.length)
        except OSError as error:
            raise StoreError(f"{self._state_file.name}: {error.strerror or error}") from error

    def close(self) -> None:
        """Safe to call twice."""
        self._lines.close()


def save(path: Path, ledger: Ledger, lines_length: int) -> None:
    """Replaces the state file in one step."""
    tracks: list[Json] = [
        key_fields(key) | track_fields(track) for key, track in ledger.tracks.items()
    ]
    beats: list[Json] = [
        {"hub": hub, "boot_id": boot_id, "boottime_ns": boottime_ns}
        for hub, (boot_id, boottime_ns) in ledger.beats.items()
    ]
    clocks: list[Json] = [
        {"hub": hub, "epoch": epoch, "boots": [boot_fields(boot) for boot in timeline]}
        for (hub, epoch), timeline in ledger.timelines.items()
    ]
    head: dict[str, Json] = {"schema": STATE_SCHEMA, "lines_length": lines_length}
    state = dumps(head | {"beats": beats, "tracks": tracks, "clocks": clocks})
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(state.encode("ascii"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load(path: Path, lines: Lines, now_ns: int) -> Ledger:
    """The ledger as of the last line. Raises PayloadError where the state file is not ours or is damaged."""
    ledger, offset = Ledger(), 0
    if path.exists():
        state = loads(path.read_bytes())
        if state.text("schema") != STATE_SCHEMA:
            raise PayloadError(str(path), repr(state.text("schema")[:48]), STATE_SCHEMA)
        offset = state.integer("lines_length", least=0)
        for item in state.objects("beats"):
            ledger.is_new_beat(item.text("hub"), item.text("boot_id"), item.integer("boottime_ns"))
        for item in state.objects("tracks"):
            # The grace begins anew: what fills a hole may have waited at the broker all the while.
            ledger.put(read_key(item), read_track(item, now_ns))
        for item in state.objects("clocks") if state.has("clocks") else ():
            timeline = Timeline(read_boot(boot) for boot in item.objects("boots"))
            ledger.timelines[item.text("hub"), item.text("epoch")] = timeline
    # A line that the disk damaged counts as not received, so the ledger will name its entry as a gap.
    for line in lines.read(offset):
        with contextlib.suppress(PayloadError):
            _replay(ledger, loads(line), now_ns)
    for track in ledger.tracks.values():
        track.chain.settle(1, track.high, track.has)
    return ledger


def _replay(ledger: Ledger, line: Fields, now_ns: int) -> None:
    match line.text("type"):
        case "entry":
            sequence = line.integer("sequence", least=1)
            key = read_key(line)
            if line.has("frame"):
                # What did not fit was said before it.
                ledger.fits(key, *read_frame(line.object("frame")))
            ledger.receive(key, Span(sequence, sequence))
            replay_entry(ledger.timeline(key.hub, key.epoch), line)
        case "clock":
            replay_clock(ledger.timeline(line.text("hub"), line.text("epoch")), line)
        case "gap":
            span = Span(line.integer("first", least=1), line.integer("last", least=1))
            key, cause = read_key(line), line.choice("cause", Cause)
            if cause is Cause.UNREADABLE:
                ledger.receive(key, span)
            if cause in {Cause.SEQUENCE, Cause.TAIL}:
                ledger.mark_named(key, span, cause)
        case "heartbeat":
            ledger.is_new_beat(line.text("hub"), line.text("boot_id"), line.integer("boottime_ns"))
            streams = line.object("streams")
            for stream in (stream for stream in Stream if streams.has(stream)):
                said = read_mark(streams.object(stream))
                key = Key(line.text("hub"), stream, line.text("epoch"))
                ledger.heartbeat(key, said.high_water, Spans(said.pending), now_ns)
        case _:
            pass
