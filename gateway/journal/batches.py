"""From a frame to what it holds, or to the frame as it is where this hub cannot open it. No files, no policy."""

from gateway.journal.access import Opened
from gateway.journal.blocks import SampleReader, is_packed
from gateway.journal.entry import Batch, Entry, PackedBatch, SealedBatch, Stream
from gateway.journal.errors import JournalError
from gateway.journal.records import decode_batch
from gateway.journal.segment import FrameHeader, unpadded


def batch_of(
    hub: str,
    stream: Stream,
    epoch: str,
    opened: Opened,
    frame: FrameHeader,
    data: bytes,
    *,
    packed: bool = False,
    codec: SampleReader | None = None,
) -> Batch:
    """What a frame holds, or the frame as it is where this hub cannot open it. Raises JournalError when it is damaged.

    With `packed` the records stay as they were written: a PackedBatch. So they do where their samples are in blocks, and
    there is no codec for them.
    """
    span = frame.first_sequence, frame.last_sequence
    if opened.cipher is not None:
        plaintext = opened.cipher.open(frame, data)
        if packed or (codec is None and is_packed(plaintext)):
            return PackedBatch(
                hub, stream, epoch, frame.boot_id, frame.clock, (), span=span, records=plaintext
            )
        entries = decode(plaintext, frame, codec)
        return Batch(hub, stream, epoch, frame.boot_id, frame.clock, entries)
    return SealedBatch(
        hub,
        stream,
        epoch,
        frame.boot_id,
        frame.clock,
        entries=(),
        span=span,
        header=opened.sealed,
        frame=unpadded(frame, data),
    )


def decode(plaintext: bytes, frame: FrameHeader, codec: SampleReader | None) -> tuple[Entry, ...]:
    """The entries of a frame, as many as its header says. Raises JournalError."""
    try:
        entries = decode_batch(plaintext, frame.first_sequence, codec=codec)
    except JournalError as error:
        raise JournalError("decode") from error
    if len(entries) != frame.count:
        raise JournalError("decode")
    return entries
