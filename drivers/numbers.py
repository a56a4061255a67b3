"""Fields of device packets: a cursor that raises `Malformed` where a packet ends too soon."""

import struct

from drivers.contract import Malformed


class Fields:
    """Reads little-endian fields in order; a packet shorter than its own flags imply is malformed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _take(self, layout: str) -> int:
        size = struct.calcsize(layout)
        if self.left < size:
            raise Malformed(
                "short",
                self._data,
                f"got {len(self._data)} bytes, expected {self._at + size} or more",
            )
        (number,) = struct.unpack_from(layout, self._data, self._at)
        self._at += size
        return int(number)

    def u8(self) -> int:
        """An unsigned 8-bit integer."""
        return self._take("<B")

    def u16(self) -> int:
        """An unsigned 16-bit integer."""
        return self._take("<H")

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at
