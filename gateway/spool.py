"""What the half with the network decided about commands, on its way to the journal: a ring of checksummed blocks.

The half with the network writes a decision here, durable, before it acts on it; the half with the devices, which alone
writes the journal, is woken by the write and puts it into the audit stream. So the ring is also the memory of what was
executed: an accepted command keeps its block until it can be valid no more, whatever became of the process.

Two files, each with one writer: `commands` here, and `commands.read`, in which the other half says how far it is
(`gateway.audit`). A crash of either at any moment loses nothing and doubles nothing.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cbor2

from gateway.clock import ClockReading, ClockState
from gateway.journal.slots import SLOT_BYTES, Slots, pack_slot, parse_slot
from gateway.journal.storage import Storage

RING, MARK = "commands", "commands.read"
"""Their names in the state directory."""
BLOCKS = 128
"""So many decisions may wait for the journal, and so many commands may be valid at once."""
VERSION = 1
LIFE_BYTES = 8
TEXT_CHARACTERS = 512
TOKEN_CHARACTERS = 64
MOST_NS = 1 << 63
ACCEPTED = "accepted"
DAMAGED = "damaged"
"""The outcome that names what the ring lost."""


class SpoolFull(Exception):  # noqa: N818 - a state that passes, not a fault
    """The block to be written next holds what must not be forgotten yet."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one command: who, what, when, outcome.

    Attributes:
        boot_id, clock: when it was decided.
        operator: as the topic named it, "" where that is no name.
        command_id: 16 bytes, or none where it could not be read.
        valid_until_ns: until then an accepted one is remembered.
        outcome: "accepted", or why it was refused.
        unrecorded: refusals since the decision before that were too many to be written down.
        log_level, log_until_ns: for an accepted "log-level": to be in force until that CLOCK_BOOTTIME.
    """

    boot_id: str
    clock: ClockReading
    operator: str
    command_id: bytes
    kind: str
    text: str
    outcome: str
    valid_until_ns: int | None = None
    unrecorded: int = 0
    log_level: str = ""
    log_until_ns: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """A decision in its place.

    Attributes:
        life: names the ring since it was last made anew; numbers of two lives are not comparable.
        number: from 1, without a hole.
        expired_before_ns: what was valid until then, or less long, may have been forgotten.
        issued_after_ns: what was issued until then may have been forgotten; None where nobody knows.
    """

    life: bytes
    number: int
    decision: Decision
    expired_before_ns: int
    issued_after_ns: int | None

    def pack(self) -> bytes:
        """As it stands on the disk."""
        d = self.decision
        clock = [d.clock.boottime_ns, d.clock.wall_ns, d.clock.state.value, d.clock.error_ns]
        what = [d.operator, d.command_id, d.kind[:TOKEN_CHARACTERS], d.text[:TEXT_CHARACTERS]]
        told = [d.outcome, d.valid_until_ns, d.unrecorded, d.log_level, d.log_until_ns]
        floors = [self.expired_before_ns, self.issued_after_ns]
        payload = cbor2.dumps([VERSION, self.life, d.boot_id, clock, what, told, floors])
        return pack_slot(self.number, payload)

    @classmethod
    def parse(cls, data: bytes) -> "Block | None":
        """From what stands on the disk; None for any other bytes."""
        found = parse_slot(data)
        try:
            match cbor2.loads(found[1]) if found else None:
                case [
                    1,
                    bytes() as life,
                    str() as boot_id,
                    [int() as boottime_ns, int() as wall_ns, str() as state, (int() | None) as error_ns],
                    [str() as operator, bytes() as command_id, str() as kind, str() as text],
                    [str() as outcome, (int() | None) as valid_until_ns, int() as unrecorded, str() as level, int() as until_ns],
                    [int() as expired_before_ns, (int() | None) as issued_after_ns],
                ] if (
                    found
                    and len(life) == LIFE_BYTES
                    and len(outcome) <= TOKEN_CHARACTERS
                    and 0 <= boottime_ns < MOST_NS
                    and 0 <= unrecorded < MOST_NS
                ):  # fmt: skip
                    clock = ClockReading(boottime_ns, wall_ns, ClockState(state), error_ns)
                    decision = Decision(
                        boot_id, clock, operator, command_id, kind, text, outcome,
                        valid_until_ns, unrecorded, level, until_ns,
                    )  # fmt: skip
                    return cls(life, found[0], decision, expired_before_ns, issued_after_ns)
                case _:
                    return None
        except (cbor2.CBORError, ValueError, TypeError, ArithmeticError, RecursionError):
            return None  # the checksum is right and the contents are not: somebody else wrote it


@dataclass(frozen=True, slots=True)
class Ring:
    """What stands in the file. `unreadable`: blocks that hold something, and no decision of this life."""

    blocks: dict[int, Block]
    unreadable: tuple[int, ...] = ()

    @property
    def newest(self) -> Block | None:
        """The one written last."""
        return max(self.blocks.values(), key=lambda block: block.number, default=None)


def make_ring(storage: Storage, directory: Path) -> Path:
    """The file, empty unless it is there. Either half may be first. May raise OSError."""
    path = directory / RING
    if RING not in storage.list(directory):
        with suppress(FileExistsError):
            storage.create(path, BLOCKS * SLOT_BYTES)
            storage.sync_directory(directory)
    return path


def read_ring(storage: Storage, path: Path) -> Ring:
    """All that stands there, and durable: what is seen before it is synced, a power cut could still take back."""
    with storage.open(path) as file:
        data = file.pread(BLOCKS * SLOT_BYTES, 0)
        file.datasync()
    found: dict[int, Block] = {}
    unreadable = []
    for at in range(BLOCKS):
        part = data[at * SLOT_BYTES : (at + 1) * SLOT_BYTES]
        block = Block.parse(part)
        if block is not None and block.number % BLOCKS == at:
            found[block.number] = block
        elif part.strip(b"\0"):
            unreadable.append(at)
    newest = max(found.values(), key=lambda block: block.number, default=None)
    strange = [n for n, block in found.items() if newest and block.life != newest.life]
    unreadable.extend(found.pop(number).number % BLOCKS for number in strange)
    return Ring(found, tuple(sorted(unreadable)))


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the journal has the ring.

    Attributes:
        done: up to this number every decision is durable in the journal.
        next: what is being written: a number, and which epoch and sequence number of the audit stream it gets.
    """

    life: bytes = bytes(LIFE_BYTES)
    done: int = 0
    next: tuple[int, str, int] | None = None

    def pack(self) -> bytes:
        """As bytes for a slot."""
        return cbor2.dumps([self.life, self.done, self.next and list(self.next)])

    @classmethod
    def load(cls, slots: Slots) -> "Mark | None":
        """What was written last; None when nothing whole stands there."""
        payload = slots.load()
        try:
            match cbor2.loads(payload) if payload else None:
                case [bytes() as life, int() as done, None]:
                    return cls(life, done)
                case [bytes() as life, int() as done, [int() as n, str() as epoch, int() as at]]:
                    return cls(life, done, (n, epoch, at))
                case _:
                    return None
        except (cbor2.CBORError, ValueError, TypeError, ArithmeticError, RecursionError):
            return None


class Spool:
    """The writing end. For one thread at a time; every method may raise OSError."""

    def __init__(
        self, directory: Path, storage: Storage, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        """Reads what is there; makes the file when it is not. What cannot be read is named in a decision of its own."""
        self._storage = storage
        self._path = make_ring(storage, directory)
        self._mark = Slots(directory / MARK, storage)
        ring = read_ring(storage, self._path)
        self._blocks = ring.blocks
        newest = ring.newest
        self._life = newest.life if newest else entropy(LIFE_BYTES)
        self._number = newest.number if newest else 0
        self._expired_before_ns = newest.expired_before_ns if newest else 0
        self._issued_after_ns = newest.issued_after_ns if newest else None
        self.damaged = ring.unreadable
        """Blocks that cannot be read. Until `mend` the ring must not be written otherwise."""
        if self.damaged:
            self._issued_after_ns = None
            # What follows the newest may have been written: then it is lost, and its number names it.
            lost = (
                at for at in range(BLOCKS) if (self._number + 1 + at) % BLOCKS not in self.damaged
            )
            self._number += next(lost, BLOCKS)

    def mend(self, decision: Decision) -> None:
        """Names the unreadable blocks with this decision, and makes them usable again."""
        self.write(decision, None)
        with self._storage.open(self._path) as file:
            for at in self.damaged:
                if at != self._number % BLOCKS:
                    file.pwrite(bytes(SLOT_BYTES), at * SLOT_BYTES)
            file.datasync()
        self.damaged = ()

    def remembers_from(self, now_ns: int | None) -> tuple[int, int | None]:
        """What may have been forgotten: all that was valid until the first time, or issued until the second.

        The second is None while the beginning of this memory cannot be told for want of a clock.
        """
        if self._issued_after_ns is None:
            self._issued_after_ns = now_ns
        return self._expired_before_ns, self._issued_after_ns

    def was_accepted(self, command_id: bytes) -> bool:
        """Whether it was executed."""
        return any(
            block.decision.command_id == command_id and block.decision.outcome == ACCEPTED
            for block in self._blocks.values()
        )

    def write(self, decision: Decision, now_ns: int | None) -> None:
        """Durable on return.

        Args:
            decision: what to write.
            now_ns: wall time, where that can be trusted: what is valid no more by it may be forgotten.

        Raises:
            SpoolFull: nothing was written.
        """
        number = self._number + 1
        former = self._blocks.get(number - BLOCKS)
        if former is not None:
            self._forget(former, now_ns)
        block = Block(self._life, number, decision, self._expired_before_ns, self._issued_after_ns)
        # Even if this fails: it may have been seen, so the number is not given again.
        self._number = number
        with self._storage.open(self._path) as file:
            file.pwrite(block.pack(), number % BLOCKS * SLOT_BYTES)
            file.datasync()
        self._blocks.pop(number - BLOCKS, None)
        self._blocks[number] = block

    def _forget(self, block: Block, now_ns: int | None) -> None:
        mark = Mark.load(self._mark)
        if mark is None or mark.life != self._life or mark.done < block.number:
            raise SpoolFull("the journal has not taken up what was decided before")
        decision = block.decision
        if decision.outcome != ACCEPTED or decision.valid_until_ns is None:
            return
        if now_ns is None or decision.valid_until_ns >= now_ns:
            raise SpoolFull("too many accepted commands are valid still")
        self._expired_before_ns = max(self._expired_before_ns, decision.valid_until_ns)
