"""Decodes stored bytes of spot measurements anew: what a driver of today reads out of what came yesterday.

An observation's identity is (raw record, place in it). A correction keeps it and counts the revision up; what a driver
no longer finds is said to be invalid, since what was sent cannot be unsent. What has not changed is not issued again.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from drivers.contract import Driver, Malformed, Output, Resume, Session
from drivers.model import Decoded, Mode, Observation, Quality, Raw, Validity
from gateway.journal.entry import Batch, Entry
from gateway.journal.scan import Damage
from gateway.link import numbered

log = logging.getLogger(__name__)

RETRACTED = "retracted"
"""The reason of a value that a newer driver does not find in the bytes."""


@dataclass(frozen=True, slots=True)
class Means:
    """How a device's bytes are decoded today."""

    driver: Driver
    options: Mapping[str, object]


@dataclass(slots=True)
class Redecoded:
    """What came of it. `corrections`: device, subject, record; to be appended to the journal.

    Attributes:
        raws: raw records that were decoded.
        unknown: raw records of devices that are not configured.
        failed: raw records on which the driver failed: what was known of them stands.
        unreadable: records of the stream that could not be read, and may have been raw.
    """

    raws: int = 0
    unknown: int = 0
    failed: int = 0
    unreadable: int = 0
    corrections: list[tuple[str, str | None, Observation]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A raw record where it lies."""

    boot_id: str
    entry: Entry
    raw: Raw


def redecode(
    batches: Iterable[Batch | Damage], means: Mapping[str, Means], *, mode: Mode, boot_id: str
) -> Redecoded:
    """Compares what today's drivers read with the newest revisions in the vitals stream.

    Args:
        batches: the whole stream, in order.
        means: how to decode, by device.
        mode: for observations that were never decoded before.
        boot_id: the boot in which the corrections will be written.
    """
    done = Redecoded()
    kept, known = _collected(batches, done)
    sessions: dict[str, tuple[tuple[str, int], Session]] = {}
    for item in kept:
        device = item.entry.device
        if device not in means:
            done.unknown += 1
            continue
        done.raws += 1
        place = item.boot_id, item.raw.link_ns
        if device not in sessions or sessions[device][0] != place:
            sessions[device] = place, _session(means[device], item.raw.link_ns)
        found = _decode(sessions[device][1], item, means[device].driver.name)
        if found is None:
            done.failed += 1
            continue
        elsewhere = None if item.boot_id == boot_id else item.boot_id
        for record, told in _corrections(known.get(item.entry.sequence, {}), found, mode):
            correction = replace(record, decoded=replace(told, boot_id=elsewhere))
            done.corrections.append((device, item.entry.subject, correction))
    return done


def _collected(
    batches: Iterable[Batch | Damage], done: Redecoded
) -> tuple[list[_Kept], dict[int, dict[int, Observation]]]:
    """The raw records, and of each the newest revision of what was read from it."""
    kept: list[_Kept] = []
    known: dict[int, dict[int, Observation]] = {}
    for batch in batches:
        if isinstance(batch, Damage):
            done.unreadable += batch.last_sequence - batch.first_sequence + 1
            continue
        for entry in batch.entries:
            record = entry.record
            if isinstance(record, Raw):
                kept.append(_Kept(batch.boot_id, entry, record))
            elif isinstance(record, Observation) and record.decoded is not None:
                told = record.decoded
                known.setdefault(told.raw_sequence, {})[told.index] = record
    return kept, known


def _session(means: Means, link_ns: int) -> Session:
    session = means.driver.session(means.options)
    list(session.start(link_ns, Resume()))  # its commands were obeyed when the bytes came
    return session


def _decode(session: Session, item: _Kept, driver: str) -> list[Observation] | None:
    """What the driver reads; None when it fails."""
    raw, found = item.raw, []
    try:
        for output in numbered(
            session.receive(raw.source, raw.data, raw.at_ns), item.entry.sequence
        ):
            found += _observations(output)
    except Malformed:
        pass  # the link has journalled it with its bytes, or an older driver knew better
    except Exception:  # the supervision edge: a driver's fault costs this record only
        log.exception("fault in driver %s at raw record %d", driver, item.entry.sequence)
        return None
    return found


def _observations(output: Output) -> list[Observation]:
    return [output] if isinstance(output, Observation) else []


def _corrections(
    before: Mapping[int, Observation], found: list[Observation], mode: Mode
) -> Iterator[tuple[Observation, Decoded]]:
    """What is new or different, each with its identity and revision."""
    for index, record in enumerate(found):
        old = before.get(index)
        kept_mode = old.quality.mode if old else mode
        stamped = replace(record, quality=replace(record.quality, mode=kept_mode))
        if old is None or old.decoded is None:
            if record.decoded is not None:
                yield stamped, record.decoded
        elif replace(stamped, decoded=old.decoded) != old:
            yield stamped, replace(old.decoded, revision=old.decoded.revision + 1)
    for index, old in before.items():
        if index >= len(found) and old.quality.reason != RETRACTED and old.decoded is not None:
            quality = Quality(Validity.INVALID, old.quality.mode, reason=RETRACTED)
            told = replace(old.decoded, revision=old.decoded.revision + 1)
            yield replace(old, quality=quality), told
