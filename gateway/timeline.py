"""When it was: from readings of the hub's clocks to the best time of any moment, and how far that can be trusted.

Pure, and the same for all who ask: the uplink before it sends, the receiver, `wardlink retime`, the journal's export.
Within a boot one relation between CLOCK_BOOTTIME and wall time holds for every moment, so that differences and order by
boottime are kept exactly and no interval is ever negative. Nothing is added to an earlier result: every time is
computed anew from its boottime, so nothing can be re-timed twice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from drivers.model import ClockReading, ClockState
from gateway.clock import BUILT_NS

RATE_PPM = 100
"""How far CLOCK_BOOTTIME may run from true time: twice what the crystals of small boards are specified for."""
AGREE_NS = 50_000_000
"""Readings that differ by less say the same: the wall clock was not set between them."""
MAX_PROOFS = 16
"""Synchronised readings kept of a boot. Fewer make the stated error larger, never wrong."""
MAX_BOOTS = 64
"""Boots kept of one journal; of more, the earliest is forgotten."""


def drift_ns(span_ns: int) -> int:
    """How far the clock may have run off in a span."""
    return abs(span_ns) * RATE_PPM // 1_000_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a moment lies for certain, if its hub's time servers did not lie. None where nothing bounds it."""

    not_before_ns: int | None = None
    not_after_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Boot:
    """What is known of one boot's clocks.

    Attributes:
        relation: the reading that all moments of the boot are timed by; None while none was seen. A synchronised one
            holds until a later synchronised one differs by `AGREE_NS`; one that is not holds until a better or later.
        newest_ns: boottime of the latest reading that had a say in `relation`.
        until_ns: the boot is known to have lasted to this boottime.
        alarm: the lowest number of an entry of the alarm stream in this boot. It orders boots: each begins with one.
        proofs: synchronised readings, by boottime.
    """

    boot_id: str
    relation: ClockReading | None = None
    newest_ns: int = 0
    until_ns: int = 0
    alarm: int | None = None
    proofs: tuple[ClockReading, ...] = ()

    @property
    def is_synchronised(self) -> bool:
        """Whether its times are true times, within an error."""
        return self.relation is not None and self.relation.state is ClockState.SYNCHRONISED

    def lasted(self, boottime_ns: int, alarm: int | None = None) -> "Boot":
        """It is known to have reached this boottime, and to have this entry in the alarm stream."""
        until_ns = max(self.until_ns, boottime_ns)
        if alarm is None or (self.alarm is not None and self.alarm <= alarm):
            alarm = self.alarm
        if (until_ns, alarm) == (self.until_ns, self.alarm):
            return self
        return replace(self, until_ns=until_ns, alarm=alarm)

    def observe(self, reading: ClockReading) -> "Boot":
        """With what a reading tells, in whatever order readings come."""
        boot = self.lasted(reading.boottime_ns)
        if reading.state is not ClockState.SYNCHRONISED:
            return boot if boot.is_synchronised else _unproved(boot, reading)
        relation = boot.relation if boot.is_synchronised else None
        if relation is None:
            boot = replace(boot, relation=reading, newest_ns=reading.boottime_ns)
        elif not agree(relation, reading):
            if reading.boottime_ns <= boot.newest_ns:
                return boot  # it was corrected since
            boot = replace(boot, relation=reading, newest_ns=reading.boottime_ns)
        elif reading.boottime_ns > boot.newest_ns:
            boot = replace(boot, newest_ns=reading.boottime_ns)
        return _proved(boot, reading)

    def error_by(self, proof: ClockReading, boottime_ns: int) -> int:
        """What `relation` may be wrong by at this moment, if the proof is true."""
        assert self.relation is not None  # noqa: S101 - a proof makes a relation
        differs_ns = abs(proof.wall_ns - self.relation.wall_of(proof.boottime_ns))
        own_ns = proof.error_ns or 0
        return own_ns + differs_ns + drift_ns(boottime_ns - proof.boottime_ns)

    def error_ns(self, boottime_ns: int, own: ClockReading | None = None) -> int:
        """What the best time of a moment may be wrong by. Only for a synchronised boot.

        Args:
            own: a further reading of this boot that may lie nearer.
        """
        relation = self.relation
        assert relation is not None  # noqa: S101 - see the docstring
        proofs = [relation, *self.proofs]
        if own is not None and own.state is ClockState.SYNCHRONISED:
            proofs.append(own)
        return min(self.error_by(proof, boottime_ns) for proof in proofs)

    def reading_at(self, own: ClockReading) -> ClockReading:
        """The best reading of the moment of `own`, a reading of this boot: `own` itself where none is better."""
        relation = self.relation
        if relation is None:
            return own
        at_ns = own.boottime_ns
        error_ns = self.error_ns(at_ns, own) if self.is_synchronised else None
        return ClockReading(at_ns, relation.wall_of(at_ns), relation.state, error_ns)

    @property
    def start_ns(self) -> int:
        """Wall time of boottime 0. Only for a synchronised boot."""
        assert self.relation is not None  # noqa: S101 - see the docstring
        return self.relation.wall_of(0)


def agree(left: ClockReading, right: ClockReading) -> bool:
    """Whether two readings of one boot say the same."""
    return abs(right.wall_ns - left.wall_of(right.boottime_ns)) < AGREE_NS


def _unproved(boot: Boot, reading: ClockReading) -> Boot:
    relation = boot.relation
    if relation is not None and reading.boottime_ns <= boot.newest_ns:
        return boot
    if relation is None or reading.state is not relation.state or not agree(relation, reading):
        relation = reading
    return replace(boot, relation=relation, newest_ns=reading.boottime_ns)


def _proved(boot: Boot, reading: ClockReading) -> Boot:
    """Kept only where it says clearly more than the others do."""
    error_ns = boot.error_by(reading, reading.boottime_ns)
    if boot.proofs and 2 * error_ns + AGREE_NS // 5 > boot.error_ns(reading.boottime_ns):
        return boot
    proofs = sorted({*boot.proofs, reading}, key=lambda proof: proof.boottime_ns)
    if len(proofs) > MAX_PROOFS:
        # The first and the last reach furthest; of the others the one with the closest neighbours says least.
        gaps = range(1, len(proofs) - 1)
        del proofs[min(gaps, key=lambda n: proofs[n + 1].boottime_ns - proofs[n - 1].boottime_ns)]
    return replace(boot, proofs=tuple(proofs))


class Timeline:
    """The boots of one journal, and what each says about its neighbours. Boots are frozen: a copy costs little."""

    def __init__(self, boots: Iterable[Boot] = ()) -> None:
        self._boots = {boot.boot_id: boot for boot in boots}

    def copy(self) -> "Timeline":
        """One that changes apart from this."""
        return Timeline(self._boots.values())

    def __iter__(self) -> Iterator[Boot]:
        return iter(self._boots.values())

    def boot(self, boot_id: str) -> Boot:
        """What is known of a boot."""
        return self._boots.get(boot_id) or Boot(boot_id)

    def keep(self, boot: Boot) -> bool:
        """Takes what is now known of a boot. Returns whether its moments have another time than before."""
        before = self._boots.get(boot.boot_id)
        self._boots[boot.boot_id] = boot
        if len(self._boots) > MAX_BOOTS:
            others = [other for other in self._boots.values() if other.boot_id != boot.boot_id]
            del self._boots[min(others, key=lambda other: other.alarm or 0).boot_id]
        return boot.relation != (before.relation if before else None)

    def bounds(self, boot_id: str, boottime_ns: int) -> Bounds:
        """Where a moment lies by the boots around its own, which need not be synchronised.

        Not before the last moment of an earlier synchronised boot and the uptimes since; not after the first of a
        later one less the uptimes between. Claims that contradict each other bound nothing.
        """
        boots = sorted(
            (boot for boot in self._boots.values() if boot.alarm is not None),
            key=lambda boot: boot.alarm or 0,
        )
        at = next((n for n, boot in enumerate(boots) if boot.boot_id == boot_id), None)
        if at is None:
            return Bounds(not_before_ns=BUILT_NS + _least(boottime_ns))
        here = boots[at]
        if here.is_synchronised:
            best_ns, error_ns = (
                here.start_ns + boottime_ns,
                here.error_ns(boottime_ns),
            )
            return Bounds(best_ns - error_ns, best_ns + error_ns)
        not_before_ns = _end_not_before(boots[:at]) + _least(boottime_ns)
        start_ns = _start_not_after(boots[at + 1 :])
        not_after_ns = None if start_ns is None else start_ns - _least(here.until_ns - boottime_ns)
        if not_after_ns is not None and not_after_ns < not_before_ns:
            return Bounds()
        return Bounds(not_before_ns, not_after_ns)


def _least(span_ns: int) -> int:
    """How long a span of boottime lasted at least."""
    return max(0, span_ns - drift_ns(span_ns))


def _end_not_before(earlier: list[Boot]) -> int:
    """Before when the last of these boots, in order, cannot have ended."""
    end_ns = BUILT_NS  # no record of this software is older
    for boot in earlier:
        if boot.is_synchronised:
            end_ns = boot.start_ns + boot.until_ns - boot.error_ns(boot.until_ns)
        else:
            end_ns += _least(boot.until_ns)
    return end_ns


def _start_not_after(later: list[Boot]) -> int | None:
    """After when the first of these boots, in order, cannot have begun."""
    between_ns = 0
    for boot in later:
        if boot.is_synchronised:
            return boot.start_ns + boot.error_ns(0) - between_ns
        between_ns += _least(boot.until_ns)
    return None
