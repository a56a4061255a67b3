"""Faults on a wire: composable, seeded, each counting what it did.

A batch is a run of units: bytes on a serial line (uint8), whole packets on Bluetooth (an object array of bytes).
Every unit carries where it comes from, so that afterwards one can tell exactly which frames came through unhurt.
Faults that strike units draw one number a unit: the same seed strikes the same units however the stream is cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FOREIGN = -1
"""Origin of a unit that the device did not send like this: inserted or altered."""
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Units, and for each its number in the device's stream, or FOREIGN."""

    units: NDArray[Any]
    origin: NDArray[np.int64]

    @classmethod
    def of_bytes(cls, data: bytes, first: int) -> "Batch":
        """Bytes whose first one has the number `first`."""
        units = np.frombuffer(data, np.uint8)
        return cls(units, np.arange(first, first + len(units), dtype=np.int64))

    @classmethod
    def of_packets(cls, packets: Sequence[bytes], first: int) -> "Batch":
        """Packets whose first one has the number `first`."""
        units = np.empty(len(packets), object)
        units[:] = packets
        return cls(units, np.arange(first, first + len(packets), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.units)

    def take(self, index: NDArray[Any] | slice) -> "Batch":
        """The units that a numpy index picks."""
        return Batch(self.units[index], self.origin[index])

    def then(self, later: "Batch") -> "Batch":
        """This batch followed by a later one."""
        return Batch(
            np.concatenate([self.units, later.units]), np.concatenate([self.origin, later.origin])
        )


class Fault(Protocol):
    """One kind of trouble. `struck` counts the units concerned, or the episodes for those that take time."""

    struck: int

    def bind(self, rng: np.random.Generator, lengths: np.random.Generator) -> None:
        """Hands over the randomness: one generator for where, one for how much."""
        ...

    def apply(self, batch: Batch, now_ns: int) -> Batch:
        """What comes out at `now_ns`. An empty batch lets time pass."""
        ...


class _Striking:
    """A fault that strikes each unit with the same probability."""

    def __init__(self, rate: float, longest: int = 1) -> None:
        self.rate = rate
        self.longest = longest
        self.struck = 0

    def bind(self, rng: np.random.Generator, lengths: np.random.Generator) -> None:
        self._rng, self._lengths = rng, lengths

    def _hits(self, count: int) -> NDArray[np.int64]:
        return np.flatnonzero(self._rng.random(count) < self.rate)

    def _length(self) -> int:
        return int(self._lengths.integers(1, self.longest + 1))


class Loss(_Striking):
    """Loses runs of 1 to `longest` units.

    A run that is a multiple of a frame's length can join two halves into one false frame, which a protocol without
    checksum or counter cannot see; keep `longest` below the frame's length where that must not happen.
    """

    _left = 0

    def apply(self, batch: Batch, now_ns: int) -> Batch:
        """The batch without the lost units; a run may go on into the next batch."""
        del now_ns
        kept = np.ones(len(batch), bool)
        kept[: self._left] = False
        until = min(self._left, len(batch))
        self._left -= until
        for hit in self._hits(len(batch)):
            if hit < until:
                continue
            end = int(hit) + self._length()
            until = min(end, len(batch))
            kept[hit:until] = False
            self._left = end - until
        self.struck += len(batch) - int(kept.sum())
        return batch.take(kept)


class Duplicate(_Striking):
    """Sends single units twice."""

    def apply(self, batch: Batch, now_ns: int) -> Batch:
        """The batch with repeats."""
        del now_ns
        hits = self._hits(len(batch))
        self.struck += len(hits)
        return batch.take(np.sort(np.concatenate([np.arange(len(batch)), hits])))


class Corrupt(_Striking):
    """Flips one bit of a unit."""

    def apply(self, batch: Batch, now_ns: int) -> Batch:
        """The batch with flipped bits; an empty packet has none."""
        del now_ns
        hits = self._hits(len(batch))
        if not len(hits):
            return batch
        units, origin = batch.units.copy(), batch.origin.copy()
        for hit in hits:
            units[hit] = self._flipped(units[hit])
        origin[hits] = FOREIGN
        self.struck += len(hits)
        return Batch(units, origin)

    def _flipped(self, unit: Any) -> Any:
        if not isinstance(unit, bytes):
            return unit ^ np.uint8(1 << int(self._lengths.integers(8)))
        packet = bytearray(unit)
        if packet:
            packet[int(self._lengths.integers(len(packet)))] ^= 1 << int(self._lengths.integers(8))
        return bytes(packet)


class Insert(_Striking):
    """Puts runs of 1 to `longest` random units before a unit."""

    def apply(self, batch: Batch, now_ns: int) -> Batch:
        """The batch with foreign units in it."""
        del now_ns
        out, at = batch.take(slice(0)), 0
        for hit in self._hits(len(batch)):
            random = self._lengths.bytes(self._length())
            packets = batch.units.dtype == object
            foreign = Batch.of_packets([random], 0) if packets else Batch.of_bytes(random, 0)
            foreign.origin[:] = FOREIGN
            self.struck += len(foreign)
            out = out.then(batch.take(slice(at, int(hit)))).then(foreign)
            at = int(hit)
        return out.then(batch.take(slice(at, None)))


class _Episodes:
    """A fault that comes at random, on average each `every_s`, and stays for `for_s`."""

    def __init__(self, every_s: float, for_s: float) -> None:
        self.every_s, self.for_s = every_s, for_s
        self.struck = 0
        self._begins_ns: int | None = None

    def bind(self, rng: np.random.Generator, lengths: np.random.Generator) -> None:
        del lengths
        self._rng = rng

    def active(self, now_ns: int) -> bool:
        """Whether the fault is on at `now_ns`, which must not run backwards."""
        if self._begins_ns is None:
            self._begins_ns = self._next(now_ns)
            self._on = False
        while now_ns >= self._begins_ns + self.for_s * NS_PER_S:
            self.struck += not self._on  # it came and went between two calls
            self._begins_ns, self._on = self._next(self._begins_ns), False
        on = now_ns >= self._begins_ns
        self.struck += on and not self._on
        self._on = on
        return on

    def _next(self, after_ns: int) -> int:
        wait_s = self.for_s + float(self._rng.exponential(self.every_s))
        return after_ns + round(wait_s * NS_PER_S)


class Delay(_Episodes):
    """Holds everything back for a while, then lets it go at once and in order."""

    _held: Batch | None = None

    def apply(self, batch: Batch, now_ns: int) -> Batch:
        """Nothing while it holds; then what was held, and the batch."""
        together = batch if self._held is None else self._held.then(batch)
        self._held = together if self.active(now_ns) else None
        return together if self._held is None else together.take(slice(0))


class Stall(_Episodes):
    """The device hangs for a while: what it should have sent is never sent. `lost` counts the units."""

    lost = 0

    def apply(self, batch: Batch, now_ns: int) -> Batch:
        """The batch, or nothing."""
        if not self.active(now_ns):
            return batch
        self.lost += len(batch)
        return batch.take(slice(0))


class Disconnect(_Episodes):
    """Pulls the plug for a while. It only says so: whoever owns the line or the connection acts on it."""

    def apply(self, batch: Batch, now_ns: int) -> Batch:
        """The batch as it is."""
        self.active(now_ns)
        return batch

    def pulled(self) -> bool:
        """Whether the plug was out at the last `apply`."""
        return self._begins_ns is not None and self._on


class OneByOne:
    """Each unit travels by itself. It only says so: whoever writes to the line acts on it."""

    struck = 0

    def bind(self, rng: np.random.Generator, lengths: np.random.Generator) -> None:
        """Needs no randomness."""

    def apply(self, batch: Batch, now_ns: int) -> Batch:
        """The batch as it is."""
        del now_ns
        self.struck += len(batch)
        return batch


class Faults:
    """A chain of faults under one seed. Without faults it passes everything on."""

    def __init__(self, seed: int, *faults: Fault) -> None:
        self.seed = seed
        self.faults = faults
        for number, fault in enumerate(faults):
            fault.bind(
                np.random.default_rng((seed, number, 0)), np.random.default_rng((seed, number, 1))
            )

    @property
    def one_by_one(self) -> bool:
        """Whether units must be written singly."""
        return any(isinstance(fault, OneByOne) for fault in self.faults)

    @property
    def pulled(self) -> bool:
        """Whether the plug is out now."""
        return any(isinstance(fault, Disconnect) and fault.pulled() for fault in self.faults)

    def apply(self, batch: Batch, now_ns: int) -> Batch:
        """What reaches the wire at `now_ns`."""
        for fault in self.faults:
            batch = fault.apply(batch, now_ns)
        return batch

    def counts(self) -> dict[str, int]:
        """How often each kind of fault struck."""
        counts: dict[str, int] = {}
        for fault in self.faults:
            name = type(fault).__name__.lower()
            counts[name] = counts.get(name, 0) + fault.struck
        return counts

    def __str__(self) -> str:
        done = ", ".join(f"{name} {count}" for name, count in self.counts().items())
        return f"faults of seed {self.seed}: {done or 'none'}"
