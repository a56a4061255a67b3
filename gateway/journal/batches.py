"""From a frame to what it holds, or to the frame as it is where this hub cannot open it. No files, no policy."""

from gateway.journal.access import Opened
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
) -> Batch:
    """What a frame holds, or the frame as it is where this hub cannot open it. Raises JournalError when it is damaged.

    With `packed` the records stay as they were written: a PackedBatch.
    """
    span = frame.first_sequence, frame.last_sequence
    if opened.cipher is not None:
        plaintext = opened.cipher.open(frame, data)
        if packed:
            return PackedBatch(
                hub, stream, epoch, frame.boot_id, frame.clock, (), span=span, records=plaintext
            )
        return Batch(hub, stream, epoch, frame.boot_id, frame.clock, decode(plaintext, frame))
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


def decode(plaintext: bytes, frame: FrameHeader) -> tuple[Entry, ...]:
    """The entries of a frame, as many as its header says. Raises JournalError."""
    try:
        entries = decode_batch(plaintext, frame.first_sequence)
    except JournalError as error:
        raise JournalError("decode") from error
    if len(entries) != frame.count:
        raise JournalError("decode")
    return entries
