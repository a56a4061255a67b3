"""The waveform codec again, from docs/waveform-codec.md: one sample, one decision, one bit after the other.

Numbers of Python alone: its integers are exact, its floats are IEEE doubles. Shares with the codec only the constants
and the trained start.
"""

import itertools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.signal import codec_kernels as k
from gateway.signal import codec_start

Rows = list[list[int]]
Decide = Callable[[int, int], int]
"""Takes the probability of a 1 in 65536ths, and the bit where it is known; returns the bit."""


@dataclass
class RangeEncoder:
    """An interval of 32-bit numbers that each bit narrows; its leading bytes are given out when they are certain."""

    low: int = 0
    high: int = 0xFFFFFFFF
    out: bytearray = field(default_factory=bytearray)

    def bit(self, chance: int, bit: int) -> int:
        middle = self.low + (self.high - self.low >> 16) * chance
        middle += ((self.high - self.low) % 65536) * chance >> 16
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            self.out.append(self.low >> 24)
            self.low = self.low % (1 << 24) << 8
            self.high = (self.high % (1 << 24) << 8) + 255
        return bit

    def finish(self) -> bytes:
        for size in range(5):
            tail = self.high.to_bytes(4, "big")[:size]
            if int.from_bytes(tail.ljust(4, b"\0"), "big") >= self.low:
                return bytes(self.out) + tail
        raise AssertionError("four bytes always do")


@dataclass
class RangeDecoder:
    """The same, of which the number is known that lies in all of these intervals."""

    data: bytes
    low: int = 0
    high: int = 0xFFFFFFFF
    at: int = 0
    code: int = 0

    def __post_init__(self) -> None:
        for _ in range(4):
            self._byte()

    def _byte(self) -> None:
        byte = self.data[self.at] if self.at < len(self.data) else 0
        self.code = self.code % (1 << 24) * 256 + byte
        self.at += 1

    def bit(self, chance: int, _bit: int) -> int:
        middle = self.low + (self.high - self.low >> 16) * chance
        middle += ((self.high - self.low) % 65536) * chance >> 16
        bit = int(self.code <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            self.low = self.low % (1 << 24) << 8
            self.high = (self.high % (1 << 24) << 8) + 255
            self._byte()
        return bit


def floor_log2(z: float) -> int:
    return 15 if z >= 65536 else math.frexp(z)[1] - 1


def size_class(ratio: float) -> int:
    return sum(ratio >= edge for edge in (0.1225, 0.64, 2.25, 6.25, 20.25))


class Lead:
    """The regression of one channel and what is remembered of its errors."""

    def __init__(self, kind: int) -> None:
        start = codec_start.trained()
        self.first_spread: list[list[float]] = start.spread[kind].tolist()
        self.first_weights: list[float] = start.weights[kind].tolist()
        self.variances = [10.0, 10.0, 10.0]
        self.errors = [0.0, 0.0, 0.0, 0.0]
        self.seen = 0
        self.restart()

    def restart(self) -> None:
        self.spread = [list(row) for row in self.first_spread]
        self.weights = list(self.first_weights)

    def predict(self, inputs: list[float]) -> float:
        self.inputs = inputs
        n = range(len(inputs))
        self.reach = [0.0 for _ in n]
        for j in range(0, len(inputs), 2):
            for i in n:
                once = self.reach[i] + self.spread[j][i] * inputs[j]
                self.reach[i] = once + self.spread[j + 1][i] * inputs[j + 1]
        self.unsure = 0.0
        ahead = 0.0
        for i in n:
            self.unsure += self.reach[i] * inputs[i]
            ahead += self.weights[i] * inputs[i]
        return ahead

    def noise(self) -> float:
        return 0.5 * (self.variances[0] + self.variances[1])

    def learn(self, error: float) -> None:
        self.seen = min(self.seen + 1, 1000)
        for i, pace in enumerate((k.FAST, k.MIDDLE, k.SLOW)):
            share = max(pace, 1 / (self.seen + 1))
            self.variances[i] += share * (error * error - self.variances[i])
        self.errors = [error, *self.errors[:3]]
        gain = 1.0 / (k.SHARE * self.noise() + k.FLOOR + self.unsure)
        step, root = gain * error, math.sqrt(gain)
        n = range(len(self.inputs))
        for i in n:
            self.weights[i] += self.reach[i] * step
        scaled = [reach * root for reach in self.reach]
        for i in n:
            for j in n:
                self.spread[i][j] -= scaled[i] * scaled[j]
            self.spread[i][i] += k.DRIFT * self.first_spread[i][i]


class Model:
    """All that a run remembers."""

    def __init__(self, channels: int, width: int) -> None:
        start = codec_start.trained()
        self.width = width
        self.leads = [Lead(0 if channels == 1 else 1 if c == 0 else 2) for c in range(channels)]
        self.past: Rows = []
        self.slots: list[int] = start.slots.tolist()
        self.mixers: list[list[int]] = start.mixers.tolist()
        tables: list[int] = codec_start.tables().tolist()
        self.stretch = tables[:4096]
        self.squash = tables[4096 : k.RATE_AT]
        self.rates = tables[k.RATE_AT :]

    def run(self, rows: Rows, count: int, bit: Decide) -> Rows:
        """Codes `count` rows; `rows` are the samples where they are known."""
        channels = len(self.leads)
        for t in range(count):
            row: list[int] = []
            for c in range(channels):
                known = rows[t][c] if rows else 0
                row.append(self.sample(c, row, known, bit))
            if not self.past:
                self.past = [row] * k.HISTORY
            self.past = [*self.past[-k.HISTORY :], row]
        return self.past[-count:] if count <= k.HISTORY else []

    def steps(self, c: int, of: int, row: list[int], count: int) -> list[float]:
        """The last differences of channel `of`, the newest first; `row` is what is known of the present."""
        values = [past[of] for past in self.past]
        if of < c:
            values.append(row[of])
        return [float(values[-1 - i] - values[-2 - i]) for i in range(count)]

    def sample(self, c: int, row: list[int], known: int, bit: Decide) -> int:
        lead, channels = self.leads[c], len(self.leads)
        least = -(1 << (self.width - 1))
        if not self.past:
            lead.seen = 1
            return self.bits(known - least, self.width, bit) + least
        inputs = self.steps(c, c, row, k.OWN)
        if channels > 1:
            inputs += self.steps(c, (c - 1) % channels, row, k.FIRST)
        if channels > 2:
            inputs += self.steps(c, (c - 2) % channels, row, k.SECOND)
        ahead = lead.predict(inputs)
        if not (abs(ahead) < k.WILD and 0 <= lead.unsure < k.WILD):
            lead.restart()
            ahead = lead.predict(inputs)
        expected = min(max(self.past[-1][c] + ahead, float(least)), float(-least - 1))
        whole = math.floor(expected)
        value = whole + self.residual(c, known - whole, expected - whole, bit)
        value = min(max(value, least), -least - 1)
        lead.learn(value - expected)
        return value

    def bits(self, value: int, count: int, bit: Decide) -> int:
        out = 0
        for place in reversed(range(count)):
            out = out * 2 + bit(32768, value >> place & 1)
        return out

    def residual(self, c: int, known: int, part: float, bit: Decide) -> int:
        contexts, row, mixer, coarse = self.contexts(c)

        def decide(node: int, known: int) -> int:
            return self.decide([n * k.NODES + node for n in contexts], mixer, node, known, bit)

        contexts[1] = row + int(part * 4)
        above = decide(0, int(known >= 1))
        distance = known - 1 if above else -known
        contexts[1] = row + min(int((1 - part if above else part) * 4), 3)
        high = distance >> coarse
        length = 0
        while length < self.width + 1 - coarse:
            if not decide(1 + min(length, 11), int(high >> length != 0)):
                break
            length += 1
        out = int(length > 0)
        base = {2: 12, 3: 13, 4: 16}.get(length, 23)
        for place in reversed(range(length - 1)):
            wanted = high >> place & 1
            if length < 5 or out == 1:
                out = out * 2 + decide(base + out, wanted)
            else:
                out = out * 2 + bit(32768, wanted)
        out = (out << coarse) + self.bits(distance, coarse, bit)
        return out + 1 if above else -out

    def contexts(self, c: int) -> tuple[list[int], int, int, int]:
        """The context in each table, the second one's without the fraction, the mixer's, and how many bits are noise."""
        lead = self.leads[c]
        fast, middle, slow = lead.variances
        coarse = 0
        while middle / 4**coarse > k.NOISY and coarse < 24:
            coarse += 1
        levels = [
            min(floor_log2(16 * v / 4**coarse + 1), k.LEVELS - 1) for v in (fast, middle, slow)
        ]
        over = 1 / (lead.noise() + k.FLOOR)
        e1, e2, e3, e4 = lead.errors
        mean = 0.5 * (abs(e3) + abs(e4))
        last, before, older = (size_class(e * e * over) for e in (e1, e2, mean))
        unsure = min(floor_log2(16 * (lead.unsure * over) + 1), 7)
        slope = min(floor_log2(4 * (lead.inputs[0] ** 2 * over) + 1) * 3 // 4, 7)
        beside = 0
        if len(self.leads) > 1:
            other = self.leads[(c - 1) % len(self.leads)]
            ratio = lead.inputs[k.OWN] ** 2 / (other.noise() + k.FLOOR)
            beside = min(floor_log2(4 * ratio + 1) // 3, 3)
        one, two, three, _ = k.CONTEXTS
        row = one + (levels[1] * 8 + slope) * 4
        contexts = [
            (levels[1] * 6 + last) * 6 + before,
            row,
            one + two + (last * 6 + older) * 14 + levels[0],
            one + two + three + (unsure * 4 + beside) * 14 + levels[2],
        ]
        return contexts, row, levels[1], coarse

    def decide(self, at: list[int], mixer: int, node: int, known: int, bit: Decide) -> int:
        half = k.SQUASH_HALF
        groups = (self.mixers[node], self.mixers[(1 + mixer) * k.NODES + node])
        odds = [self.stretch[self.slots[n] >> 20] for n in at]
        sums = []
        for weights in groups:
            total = sum(w * o for w, o in zip(weights, odds, strict=True)) >> 16
            sums.append(min(max(total, -half), half))
        chance = self.squash[half + (sum(sums) >> 1)]
        got = bit(min(max(chance, 32), 65536 - 32), known)
        for weights, total in zip(groups, sums, strict=True):
            miss = (got * 65536 - self.squash[half + total]) * k.LEARN
            for i in range(len(weights)):
                weight = weights[i] + (odds[i] * miss + (1 << 17) >> 18)
                weights[i] = min(max(weight, -k.WEIGHT_MOST), k.WEIGHT_MOST)
        for n in at:
            chance, count = divmod(self.slots[n], 1024)
            chance += ((got << 22) - chance) * self.rates[count] >> 16
            self.slots[n] = chance * 1024 + min(count + 1, k.COUNT_MOST)
        return got


class Lists:
    """The values of each channel, sorted, and a model that sees their places."""

    def __init__(self, channels: int, width: int) -> None:
        self.model = Model(channels, 16)
        self.width = width
        self.values: Rows = [[] for _ in range(channels)]

    def take(self, fresh: Rows) -> None:
        """The lists grow, and what the model remembers gets its new places."""
        old = self.values
        self.values = [sorted({*a, *b}) for a, b in zip(old, fresh, strict=True)]
        self.model.past = [
            [self.values[c].index(old[c][place]) for c, place in enumerate(row)]
            for row in self.model.past
        ]

    def payload(self, rows: Rows) -> bytes:
        columns = list(zip(*rows, strict=True))
        fresh = [sorted({*a} - {*b}) for a, b in zip(columns, self.values, strict=True)]
        part = b""
        if any(fresh):
            steps = [[b - a] for values in fresh for a, b in itertools.pairwise([0, *values])]
            coder = RangeEncoder()
            Model(1, self.width + 2).run(steps, len(steps), coder.bit)
            part = b"".join(leb128(len(values)) for values in fresh) + coder.finish()
        self.take(fresh)
        coder = RangeEncoder()
        places = [[self.values[c].index(value) for c, value in enumerate(row)] for row in rows]
        self.model.run(places, len(places), coder.bit)
        return leb128(len(part)) + part + coder.finish()


def leb128(value: int) -> bytes:
    out = b""
    while True:
        out += bytes((value % 128 + 128 * (value > 127),))
        value //= 128
        if not value:
            return out


def encode_listed(
    lists: Lists, rows: Rows, number: int, before: int, *, same: bool = False
) -> tuple[bytes, int]:
    """A packet of a run with lists, and its checksum; number 0 is the key packet."""
    body = lists.payload(rows)
    flags = bool(number) | (lists.width == 24) << 2 | (not number or same) << 3
    head = bytes((16 + flags, number or len(lists.values)))
    head += b"" if number and same else leb128(len(rows))
    samples = b"".join(value.to_bytes(4, "little", signed=True) for row in rows for value in row)
    checksum = zlib.crc32(head + body + samples, before)
    return head + checksum.to_bytes(4, "little") + body, checksum


def encode(
    model: Model, rows: Rows, second: int, before: int, *, same: bool = False
) -> tuple[bytes, int]:
    """A packet and its checksum; `before` is that of the packet before, 0 for one that stands alone."""
    width = model.width
    follows = bool(model.past)
    coder = RangeEncoder()
    model.run(rows, len(rows), coder.bit)
    payload = coder.finish()
    plain = b"".join(
        (value % (1 << width)).to_bytes(width // 8, "little") for row in rows for value in row
    )
    is_plain = len(payload) >= len(plain)
    flags = follows | is_plain << 1 | (width == 24) << 2 | (same and follows) << 3
    head = bytes((16 + flags, second))
    head += b"" if flags & 8 else leb128(len(rows))
    body = plain if is_plain else payload
    samples = b"".join(value.to_bytes(4, "little", signed=True) for row in rows for value in row)
    checksum = zlib.crc32(head + body + samples, before)
    return head + checksum.to_bytes(4, "little") + body, checksum


def decode_payload(model: Model, payload: bytes, count: int) -> Rows:
    """The rows of a payload, or any rows where it is none."""
    coder = RangeDecoder(payload)
    rows: Rows = []
    for _ in range(count):
        rows += model.run([], 1, coder.bit)
    return rows
