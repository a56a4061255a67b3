"""Times and readings of the clock as they stand in messages and lines. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from drivers.model import ClockChange, ClockReading, ClockState
from gateway.journal.entry import Batch
from gateway.timeline import Timeline
from gateway.uplink.fields import Fields, Json

EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)


def iso_time(wall_ns: int) -> str | None:
    """UTC in ISO 8601 with microseconds; None outside of the years 1 to 9999."""
    try:
        moment = EPOCH_START + timedelta(microseconds=wall_ns // 1000)
    except OverflowError:
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def time_fields(boottime_ns: int, clock: ClockReading | None) -> dict[str, Json]:
    """The hub's best wall time never stands without the state of the clock that it came from.

    Without a clock of the same boot there is none: the time is that of the raw record.
    """
    if clock is None or clock.state is ClockState.UNSET:
        # What a clock shows that nobody has set is no time, not even a bad one.
        return {"time": None, "clock": ClockState.UNSET, "boottime_ns": boottime_ns}
    wall = iso_time(clock.wall_of(boottime_ns))
    return {"time": wall, "clock": clock.state, "boottime_ns": boottime_ns}


def when_fields(
    timeline: Timeline, boot_id: str, boottime_ns: int, own: ClockReading | None = None
) -> dict[str, Json]:
    """The best that is known of when a moment was, for whoever knows more than one message.

    With `error_ns` where the time is a true one, with the bounds that there are where it is not.

    Args:
        own: a reading near the moment, of the same boot.
    """
    boot = timeline.boot(boot_id)
    fields = time_fields(boottime_ns, boot.relation)
    if boot.is_synchronised:
        return {**fields, "error_ns": boot.error_ns(boottime_ns, own)}
    bounds = timeline.bounds(boot_id, boottime_ns)
    if bounds.not_before_ns is not None:
        fields["not_before"] = iso_time(bounds.not_before_ns)
    if bounds.not_after_ns is not None:
        fields["not_after"] = iso_time(bounds.not_after_ns)
    return fields


def retimed(record: Mapping[str, Json], timeline: Timeline, batch: Batch) -> dict[str, Json]:
    """A record's fields with the best that is known of its time. A correction belongs to the boot of its reading."""
    boot_id, boottime_ns = record.get("boot_id") or batch.boot_id, record["boottime_ns"]
    assert isinstance(boot_id, str)  # noqa: S101 - as `entry_fields` writes them
    assert isinstance(boottime_ns, int)  # noqa: S101
    own = batch.clock if boot_id == batch.boot_id else None
    return {**record, **when_fields(timeline, boot_id, boottime_ns, own)}


def reading_fields(reading: ClockReading) -> dict[str, Json]:
    """A reading of both clocks."""
    return {
        "boottime_ns": reading.boottime_ns,
        "wall_ns": reading.wall_ns,
        "state": reading.state,
        "error_ns": reading.error_ns,
    }


def reading_of(fields: Fields) -> ClockReading:
    """The reading that `reading_fields` wrote. Raises PayloadError."""
    return ClockReading(
        fields.integer("boottime_ns"),
        fields.integer("wall_ns"),
        fields.choice("state", ClockState),
        fields.integer_or_none("error_ns"),
    )


def change_fields(change: ClockChange) -> Mapping[str, Json]:
    """A change of the clock, beside the other fields of its event."""
    before = None if change.before is None else reading_fields(change.before)
    return {"before": before, "after": reading_fields(change.after)}


def change_of(fields: Fields) -> ClockChange | None:
    """The change that `change_fields` wrote, if there is one. Raises PayloadError."""
    if not fields.has("after"):
        return None
    before = reading_of(fields.object("before")) if fields.has("before") else None
    return ClockChange(before, reading_of(fields.object("after")))
