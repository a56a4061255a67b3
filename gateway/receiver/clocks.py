"""What messages tell about a hub's clocks, and the line that says that a boot's times are others than before. Pure."""

from collections.abc import Iterator

from drivers.model import ClockReading, Event
from gateway.journal.entry import Batch, Stream
from gateway.receiver.store import Line
from gateway.timeline import Boot, Timeline
from gateway.uplink.fields import Fields, Json
from gateway.uplink.notice import Heartbeat
from gateway.uplink.times import change_of, reading_fields, reading_of


def learn(timeline: Timeline, content: Batch | Heartbeat) -> Boot | None:
    """Takes into the timeline what a message tells. Returns the boot where its moments have another time than before."""
    boot = timeline.boot(content.boot_id)
    if isinstance(content, Batch):
        alarm = content.first_sequence if content.stream is Stream.ALARM else None
        boot = boot.lasted(content.clock.boottime_ns, alarm)
        for reading in _changes(content):
            boot = boot.observe(reading)
    boot = boot.observe(content.clock)
    return boot if timeline.keep(boot) else None


def _changes(batch: Batch) -> Iterator[ClockReading]:
    for entry in batch.entries:
        if isinstance(entry.record, Event) and entry.record.clock is not None:
            if entry.record.clock.before is not None:
                yield entry.record.clock.before
            yield entry.record.clock.after


def clock_line(hub: str, epoch: str, boot: Boot) -> Line:
    """How from now on all moments of a boot are timed, those of earlier lines too."""
    relation = boot.relation
    reading: dict[str, Json] = {} if relation is None else reading_fields(relation)
    return {"type": "clock", "hub": hub, "epoch": epoch, "boot_id": boot.boot_id, **reading}


def replay_clock(timeline: Timeline, line: Fields) -> None:
    """A `clock` line, read again. Raises PayloadError."""
    timeline.keep(timeline.boot(line.text("boot_id")).observe(reading_of(line)))


def replay_entry(timeline: Timeline, line: Fields) -> None:
    """An `entry` line, read again: it says that the boot lasted so long, and where it stands among the others."""
    record = line.object("record")
    boot = timeline.boot(line.text("boot_id"))
    is_alarm = line.text("stream") == Stream.ALARM
    alarm = line.integer("sequence", least=1) if is_alarm else None
    # A correction made in a later boot has the boottime of its reading's.
    lasted_ns = 0 if record.has("boot_id") else record.integer("boottime_ns")
    boot = boot.lasted(lasted_ns, alarm)
    change = change_of(record)
    for reading in (change.before, change.after) if change else ():
        boot = boot if reading is None else boot.observe(reading)
    timeline.keep(boot)


def boot_fields(boot: Boot) -> dict[str, Json]:
    """All that is known of a boot, for a state file or a database."""
    return {
        "boot_id": boot.boot_id,
        "relation": None if boot.relation is None else reading_fields(boot.relation),
        "newest_ns": boot.newest_ns,
        "until_ns": boot.until_ns,
        "alarm": boot.alarm,
        "proofs": [reading_fields(proof) for proof in boot.proofs],
    }


def read_boot(fields: Fields) -> Boot:
    """What `boot_fields` made. Raises PayloadError."""
    return Boot(
        fields.text("boot_id"),
        reading_of(fields.object("relation")) if fields.has("relation") else None,
        fields.integer("newest_ns"),
        fields.integer("until_ns"),
        fields.integer_or_none("alarm"),
        tuple(reading_of(proof) for proof in fields.objects("proofs")),
    )
