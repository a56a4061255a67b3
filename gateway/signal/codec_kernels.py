"""The waveform codec's model and range coder. Kernels only; docs/waveform-codec.md has the format byte by byte.

Each sample is predicted from its own lead and from up to two others by recursive least squares, and what remains is
coded in binary decisions (side, length, bits), whose probabilities four adaptive tables give and a small network mixes.
Encoder and decoder run the same kernel, so they cannot disagree.

Arithmetic: 64-bit integers, and IEEE double precision in a fixed order, with no library function and no contraction. So
every machine gives the same bits; `tests/gateway/signal/test_codec_arithmetic.py` holds the compiler to it.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.jit import kernel

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Words = NDArray[np.uint32]
Bytes = NDArray[np.uint8]

OWN, FIRST, SECOND = 12, 6, 2
KINDS: Final = 3
TAPS: Final = OWN + FIRST + SECOND
"""A prediction's inputs: the last differences of the lead itself, of the lead before it and of the one before that."""
WEIGHT, INPUT, REACH = TAPS, TAPS + 1, TAPS + 2
FIT: Final = TAPS + 3
"""Rows of `fit`, which is the regression: the covariance of the weights over the variance of the noise, the weights,
the inputs, covariance x inputs. One such matrix a channel, and after them those of the trained starts."""
HISTORY: Final = OWN + 1
"""Rows of samples before the first that is coded."""

FAST, MIDDLE, SLOW = 0.4, 0.1, 0.006
"""How fast the three variances of the prediction error follow it."""
SHARE: Final = 0.3
FLOOR: Final = 0.1
"""What the regression takes for the variance of its noise: this share of what was measured, and no less than the
variance of rounding."""
DRIFT: Final = 0.0002
"""By this part of their first variance the weights may wander at each sample."""
VARIANCE_START: Final = 10.0

SIDE, LENGTH, BITS, DONE = range(4)
# Columns of `stats`, one row a channel.
V_FAST, V_MIDDLE, V_SLOW, E1, E2, E3, E4, SPREAD, SEEN = range(9)
STATS: Final = 9

LEVELS: Final = 14
SIZES: Final = 6
"""Classes of variances (steps of a factor of 2) and of errors against the variance."""
NODES: Final = 25
CONTEXTS: Final = (LEVELS * SIZES * SIZES, LEVELS * 8 * 4, SIZES * SIZES * LEVELS, 8 * 4 * LEVELS)
TABLES: Final = len(CONTEXTS)
SLOTS: Final = sum(CONTEXTS) * NODES
"""A slot is a probability of 22 bits over a count of 10."""
MIXERS: Final = (1 + LEVELS) * NODES

# Places in `at`: the slot where each table's context begins, the second mixer's group of rows, where the second table's
# context begins without the fraction of the prediction, and how many of a residual's lowest bits are noise; then the
# range coder: its interval, what it reads, and where.
MIXER, ROW, COARSE, LOW, HIGH, CODE, POSITION = range(TABLES, TABLES + 7)
PLACES: Final = TABLES + 7

# Places in `net`: log odds (8 bits of fraction) by probability (12 bits), probability (16 bits) by log odds, rate of
# learning (16 bits) by count, and the mixers' weights (16 bits of fraction), the only ones that change.
STRETCH_HALF: Final = 2047
SQUASH_HALF: Final = 3071
COUNT_MOST: Final = 400
EVEN_AT: Final = 4096 + SQUASH_HALF
RATE_AT: Final = EVEN_AT + SQUASH_HALF + 1
MIXER_AT: Final = RATE_AT + COUNT_MOST + 1

LEARN: Final = 4
WEIGHT_MOST: Final = 1 << 21
CERTAIN: Final = 32
"""No decision is surer than 1 - 32 / 65536: what was never seen costs 11 bits, no more."""
ONE: Final = 1 << 16

LENGTHS: Final = 12
"""Lengths of a residual from here on share a node."""
NOISY: Final = 576.0
"""Above this variance the lowest bits of a residual are noise, and are coded as they are."""
WILD: Final = 1e30


@kernel("int64(float64)")
def codec_level(z: float) -> int:
    """The whole part of log2(z) for 1 <= z < 65536; 15 above, 0 below."""
    level = 0
    if not z < 65536.0:
        return 15
    if z >= 256.0:
        z *= 1.0 / 256.0
        level = 8
    if z >= 16.0:
        z *= 1.0 / 16.0
        level += 4
    if z >= 4.0:
        z *= 1.0 / 4.0
        level += 2
    if z >= 2.0:
        level += 1
    return level


@kernel("int64(float64)")
def codec_size(ratio: float) -> int:
    """The class of an error, squared and over its variance."""
    if ratio < 0.64:
        return 0 if ratio < 0.1225 else 1
    if ratio < 6.25:
        return 2 if ratio < 2.25 else 3
    return 4 if ratio < 20.25 else 5


@kernel("int64(int64, int64, int64, int64[::1], uint8[::1])")
def codec_split(decode: int, bit: int, chance: int, at: Longs, data: Bytes) -> int:
    """Codes one bit that is 1 with probability `chance` / 65536; returns it.

    Past its end `data` reads as zeros, and takes nothing.
    """
    low, high = at[LOW], at[HIGH]
    middle = low + (high - low >> 16) * chance + ((high - low & 0xFFFF) * chance >> 16)
    if decode != 0:
        bit = 1 if at[CODE] <= middle else 0
    at[LOW] = low if bit != 0 else middle + 1
    at[HIGH] = middle if bit != 0 else high
    while (at[LOW] ^ at[HIGH]) >> 24 == 0:
        position = at[POSITION]
        if decode != 0:
            byte = int(data[position]) if position < data.size else 0
            at[CODE] = (at[CODE] << 8 & 0xFFFFFFFF) | byte
        elif position < data.size:
            data[position] = at[HIGH] >> 24
        at[POSITION] = position + 1
        at[LOW] = at[LOW] << 8 & 0xFFFFFFFF
        at[HIGH] = (at[HIGH] << 8 & 0xFFFFFFFF) | 0xFF
    return bit


@kernel("int64(int64, int64, int64, int64[::1], uint8[::1])")
def codec_plain(decode: int, value: int, bits: int, at: Longs, data: Bytes) -> int:
    """Codes the lowest `bits` bits of a value as they are, the highest first; returns them."""
    out = 0
    for place in range(bits - 1, -1, -1):
        out = out << 1 | codec_split(decode, value >> place & 1, ONE >> 1, at, data)
    return out


@kernel("int64(int64, int64, int64, int64[::1], uint32[::1], int32[::1], uint8[::1])")
def codec_decide(
    decode: int, bit: int, node: int, at: Longs, slots: Words, net: Ints, data: Bytes
) -> int:
    """Codes the decision `node` by what was learnt of it, and learns from it; returns it."""
    first = MIXER_AT + node * TABLES
    second = first + (1 + at[MIXER]) * NODES * TABLES
    dot1, dot2 = 0, 0
    for i in range(TABLES):
        odds = int(net[int(slots[at[i] + node]) >> 20])
        dot1 += int(net[first + i]) * odds
        dot2 += int(net[second + i]) * odds
    dot1 = min(max(dot1 >> 16, -SQUASH_HALF), SQUASH_HALF)
    dot2 = min(max(dot2 >> 16, -SQUASH_HALF), SQUASH_HALF)
    chance = int(net[EVEN_AT + (dot1 + dot2 >> 1)])
    bit = codec_split(decode, bit, min(max(chance, CERTAIN), ONE - CERTAIN), at, data)
    miss1 = ((bit << 16) - int(net[EVEN_AT + dot1])) * LEARN
    miss2 = ((bit << 16) - int(net[EVEN_AT + dot2])) * LEARN
    for i in range(TABLES):
        slot = int(slots[at[i] + node])
        odds = int(net[slot >> 20])
        weight1 = int(net[first + i]) + (odds * miss1 + (1 << 17) >> 18)
        weight2 = int(net[second + i]) + (odds * miss2 + (1 << 17) >> 18)
        net[first + i] = min(max(weight1, -WEIGHT_MOST), WEIGHT_MOST)
        net[second + i] = min(max(weight2, -WEIGHT_MOST), WEIGHT_MOST)
        chance, count = slot >> 10, slot & 1023
        chance += ((bit << 22) - chance) * int(net[RATE_AT + count]) >> 16
        slots[at[i] + node] = chance << 10 | min(count + 1, COUNT_MOST)
    return bit


@kernel("int64(int64, int64, float64, int64, int64[::1], uint32[::1], int32[::1], uint8[::1])")
def codec_residual(
    decode: int,
    residual: int,
    part: float,
    width: int,
    at: Longs,
    slots: Words,
    net: Ints,
    data: Bytes,
) -> int:
    """Codes the difference from the whole part of the prediction, whose fraction is `part`; returns it.

    Which side of the prediction, then the distance: how many bits it is long, in unary, and the bits below the first.
    The lowest bits go as they are where they are noise.
    """
    row, coarse = int(at[ROW]), int(at[COARSE])
    at[1] = row + int(part * 4.0) * NODES
    above, distance, high, length, out, left = 0, 0, 0, 0, 0, 0
    node, wanted, stage = 0, 1 if residual >= 1 else 0, SIDE
    while stage != DONE:
        bit = codec_decide(decode, wanted, node, at, slots, net, data)
        if stage == SIDE:
            above = bit
            distance = residual - 1 if above != 0 else -residual
            high = distance >> coarse
            at[1] = row + min(int((1.0 - part if above != 0 else part) * 4.0), 3) * NODES
            stage = LENGTH
        elif stage == LENGTH:
            length += bit
            if bit == 0 or length == width + 1 - coarse:
                out, left = min(length, 1), max(length - 1, 0)
                stage = BITS if left > 0 else DONE
        else:
            out, left = out << 1 | bit, left - 1
            stage = BITS if left > 0 and length < 5 else DONE
        if stage == LENGTH:
            node = 1 + min(length, LENGTHS - 1)
            wanted = 1 if high >> length != 0 else 0
        else:  # `out` numbers the nodes of a length as in a heap: 1, 2 and 3, 4 to 7
            node = (12 if length == 2 else 13 if length == 3 else 16 if length == 4 else 23) + out
            wanted = high >> max(left - 1, 0) & 1
    out = out << left | codec_plain(decode, high, left, at, data)
    out = out << coarse | codec_plain(decode, distance, coarse, at, data)
    return out + 1 if above != 0 else -out


@kernel("int64(int32[:,::1], int64, int64, int64, int64, int64, float64[:,:,::1])")
def codec_steps(samples: Ints, t: int, c: int, of: int, at: int, count: int, fit: Floats) -> int:
    """Puts the last differences of channel `of` into the inputs of channel `c`; returns where they end."""
    newest = t if of < c else t - 1  # of a channel before this one the present sample is known
    for i in range(count):
        step = int(samples[newest - i, of]) - int(samples[newest - i - 1, of])
        fit[c, INPUT, at + i] = float(step)
    return at + count


@kernel("int64(int32[:,::1], int64, int64, float64[:,:,::1])")
def codec_inputs(samples: Ints, t: int, c: int, fit: Floats) -> int:
    """Gathers the inputs of a prediction; returns how many there are."""
    channels = samples.shape[1]
    taps = codec_steps(samples, t, c, c, 0, OWN, fit)
    if channels > 1:
        taps = codec_steps(samples, t, c, (c + channels - 1) % channels, taps, FIRST, fit)
    if channels > 2:
        taps = codec_steps(samples, t, c, (c + channels - 2) % channels, taps, SECOND, fit)
    return taps


@kernel("int64(int64, int64)")
def codec_kind(c: int, channels: int) -> int:
    """The row where the trained start of channel `c` is.

    After those of the channels there is one for a lead alone, one for the first of several, one for those after it.
    """
    return channels + (0 if channels == 1 else 1 if c == 0 else 2)


@kernel("int64(int64, float64[:,:,::1])")
def codec_restart(c: int, fit: Floats) -> int:
    """Gives the regression of channel `c` its trained start."""
    kind = codec_kind(c, fit.shape[0] - KINDS)
    for i in range(TAPS + 1):
        for j in range(TAPS):
            fit[c, i, j] = fit[kind, i, j]
    return kind


@kernel("float64(int64, int64, float64[:,:,::1], float64[:,::1])")
def codec_predict(c: int, taps: int, fit: Floats, stats: Floats) -> float:
    """Returns the difference that is expected next.

    The row REACH becomes spread x inputs, stats[SPREAD] the variance of the prediction for the uncertainty of its
    weights.
    """
    ahead, wide = 0.0, 0.0
    for i in range(taps):
        ahead += fit[c, WEIGHT, i] * fit[c, INPUT, i]
        fit[c, REACH, i] = 0.0
    for j in range(0, taps, 2):
        one, two = fit[c, INPUT, j], fit[c, INPUT, j + 1]
        for i in range(taps):
            fit[c, REACH, i] = (fit[c, REACH, i] + fit[c, j, i] * one) + fit[c, j + 1, i] * two
    for i in range(taps):
        wide += fit[c, REACH, i] * fit[c, INPUT, i]
    stats[c, SPREAD] = wide
    return ahead


@kernel("int64(int64, int64, float64, float64[:,:,::1], float64[:,::1])")
def codec_learn(c: int, taps: int, error: float, fit: Floats, stats: Floats) -> int:
    """Lets variances, weights and their spread follow the error of the last prediction."""
    kind = codec_kind(c, stats.shape[0])
    stats[c, SEEN] = min(stats[c, SEEN] + 1.0, 1000.0)
    start = 1.0 / (stats[c, SEEN] + 1.0)
    square = error * error
    stats[c, V_FAST] += max(FAST, start) * (square - stats[c, V_FAST])
    stats[c, V_MIDDLE] += max(MIDDLE, start) * (square - stats[c, V_MIDDLE])
    stats[c, V_SLOW] += max(SLOW, start) * (square - stats[c, V_SLOW])
    stats[c, E4], stats[c, E3], stats[c, E2] = stats[c, E3], stats[c, E2], stats[c, E1]
    stats[c, E1] = error
    noise = SHARE * (0.5 * (stats[c, V_FAST] + stats[c, V_MIDDLE])) + FLOOR
    gain = 1.0 / (noise + stats[c, SPREAD])
    step, root = gain * error, np.sqrt(gain)
    for i in range(taps):
        fit[c, WEIGHT, i] += fit[c, REACH, i] * step
        fit[c, REACH, i] *= root
    for i in range(taps):
        one = fit[c, REACH, i]
        for j in range(taps):
            fit[c, i, j] -= one * fit[c, REACH, j]
        fit[c, i, i] += DRIFT * fit[kind, i, i]
    return kind


@kernel("int64(int64, int64, float64[:,:,::1], float64[:,::1], int64[::1])")
def codec_contexts(c: int, channels: int, fit: Floats, stats: Floats, at: Longs) -> int:
    """Looks up where the four tables and the mixers stand for the next residual; returns the lead beside."""
    coarse, scale = 0, 16.0
    middle = stats[c, V_MIDDLE]
    while middle > NOISY and coarse < 24:
        middle *= 0.25
        scale *= 0.25
        coarse += 1
    noise = 0.5 * (stats[c, V_FAST] + stats[c, V_MIDDLE]) + FLOOR
    over = 1.0 / noise
    fast = min(codec_level(scale * stats[c, V_FAST] + 1.0), LEVELS - 1)
    mid = min(codec_level(scale * stats[c, V_MIDDLE] + 1.0), LEVELS - 1)
    slow = min(codec_level(scale * stats[c, V_SLOW] + 1.0), LEVELS - 1)
    last = codec_size(stats[c, E1] * stats[c, E1] * over)
    before = codec_size(stats[c, E2] * stats[c, E2] * over)
    mean = 0.5 * (abs(stats[c, E3]) + abs(stats[c, E4]))
    older = codec_size(mean * mean * over)
    unsure = min(codec_level(16.0 * (stats[c, SPREAD] * over) + 1.0), 7)
    slope = min(codec_level(4.0 * (fit[c, INPUT, 0] * fit[c, INPUT, 0] * over) + 1.0) * 3 >> 2, 7)
    other = c - 1 if c > 0 else channels - 1
    noise = 0.5 * (stats[other, V_FAST] + stats[other, V_MIDDLE]) + FLOOR
    step = fit[c, INPUT, OWN]  # zero where there is no other lead
    beside = min(codec_level(4.0 * (step * step / noise) + 1.0) // 3, 3)
    at[0] = ((mid * SIZES + last) * SIZES + before) * NODES
    at[ROW] = (CONTEXTS[0] + (mid * 8 + slope) * 4) * NODES
    at[2] = (CONTEXTS[0] + CONTEXTS[1] + (last * SIZES + older) * LEVELS + fast) * NODES
    fourth = CONTEXTS[0] + CONTEXTS[1] + CONTEXTS[2]
    at[3] = (fourth + (unsure * 4 + beside) * LEVELS + slow) * NODES
    at[MIXER], at[COARSE] = mid, coarse
    return other


@kernel(
    "int64(int64, int64, int32[:,::1], float64[:,:,::1], float64[:,::1],"
    " int64[::1], uint32[::1], int32[::1], uint8[::1])"
)
def codec_run(
    decode: int,
    width: int,
    samples: Ints,
    fit: Floats,
    stats: Floats,
    at: Longs,
    slots: Words,
    net: Ints,
    data: Bytes,
) -> int:
    """Codes `samples` from row HISTORY on into `data`, or decodes them; returns the place in `data` where it ends.

    The rows above are the last of the run so far. The first row of a run goes as it is, and fills them.
    """
    at[LOW], at[HIGH], at[CODE], at[POSITION] = 0, 0xFFFFFFFF, 0, 0
    if decode != 0:
        for place in range(4):
            at[CODE] = at[CODE] << 8 | (int(data[place]) if place < data.size else 0)
        at[POSITION] = 4
    channels = samples.shape[1]
    least, most = -(1 << (width - 1)), (1 << (width - 1)) - 1
    for t in range(HISTORY, samples.shape[0]):
        for c in range(channels):
            if stats[c, SEEN] == 0.0:
                stats[c, SEEN] = 1.0
                bits = codec_plain(decode, int(samples[t, c]) - least, width, at, data)
                for i in range(HISTORY + 1):
                    samples[t - i, c] = bits + least
                continue
            taps = codec_inputs(samples, t, c, fit)
            ahead = codec_predict(c, taps, fit, stats)
            if not (abs(ahead) < WILD and 0.0 <= stats[c, SPREAD] < WILD):
                codec_restart(c, fit)
                ahead = codec_predict(c, taps, fit, stats)
            expected = float(samples[t - 1, c]) + ahead
            expected = min(max(expected, float(least)), float(most))
            whole = int(np.floor(expected))
            codec_contexts(c, channels, fit, stats, at)
            residual, part = int(samples[t, c]) - whole, expected - float(whole)
            residual = codec_residual(decode, residual, part, width, at, slots, net, data)
            value = min(max(whole + residual, least), most)
            samples[t, c] = value
            codec_learn(c, taps, float(value) - expected, fit, stats)
    return int(at[POSITION])
