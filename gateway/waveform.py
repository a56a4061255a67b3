"""The samples of waveforms in blocks of the lossless codec: for the journal, and for who reads what came out of it.

The codec needs numpy and the kernels. They are loaded when the first block is met, so a receiver of vital signs, or a look
into a journal, does without them. The uplink carries blocks as they are and never comes here.
"""

from array import array
from collections.abc import Sequence


class WaveformCodec:
    """Satisfies `gateway.journal.blocks.SampleCodec`."""

    def load(self) -> None:
        """Loads them now, for who cannot wait at the first block."""
        self.encode([array("i", [0])], 16)

    def encode(self, signals: Sequence["array[int]"], bits: int) -> bytes:
        """One block of signals that are equally long, of samples that fit into 16 or 24 bits."""
        import numpy as np  # noqa: PLC0415 - see above

        from gateway.signal import codec  # noqa: PLC0415

        return codec.encode_block(np.array(signals, np.int32).T, bits)

    def decode(self, block: bytes, channels: int, rows: int) -> Sequence["array[int]"]:
        """The signals of a block. Raises CodecError for one of another shape, before it does any work, or no block."""
        from gateway.signal import codec  # noqa: PLC0415 - see above

        shape = codec.block_shape(block)
        if shape != (channels, rows):
            raise codec.DamagedError(
                f"block: got {shape[0]} x {shape[1]} samples, expected {channels} x {rows}"
            )
        return [array("i", column.tobytes()) for column in codec.decode_block(block).T]
