"""What may be wrong with the bytes of a waveform, and the numbers in them."""


class CodecError(ValueError):
    """These bytes are no block that can be decoded. Says what, got and expected."""


class DamagedError(CodecError):
    """Bytes are missing, superfluous or wrong."""


class LostError(CodecError):
    """The packet goes on from one that was not decoded. Decoding resumes at the next key packet."""


class UnknownVersionError(CodecError):
    """The block is of a format that this program does not know."""


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first, the highest bit set where another byte follows."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_of(data: bytes, at: int) -> tuple[int, int]:
    """Returns a number of at most three bytes, and where it ends."""
    value = 0
    for place in range(3):
        if at + place == len(data):
            raise DamagedError(f"number: got {place} bytes of it, expected its end")
        value |= (data[at + place] & 0x7F) << 7 * place
        if data[at + place] < 0x80:
            return value, at + place + 1
    raise DamagedError("number: got more than 3 bytes, expected its end")
