"""`wardlink journal redecode`: the one command that reads old bytes with the drivers that are installed now."""

import argparse
import json
import os
import sys

from drivers import registry
from gateway import budget
from gateway.clock import SystemClock
from gateway.config.load import load
from gateway.journal.entry import Stream
from gateway.journal.inspect import JournalFiles
from gateway.journal.journal import SEGMENT_BYTES, Journal
from gateway.journal.keys import HubKey
from gateway.journal.readers import choose
from gateway.journal.segment import FRAME_BYTES
from gateway.redecode import Means, redecode
from gateway.waveform import WaveformCodec

OK, FAILED = 0, 1


def options(parser: argparse.ArgumentParser) -> None:
    """Whether to write."""
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be corrected, and write nothing"
    )


def redecode_journal(arguments: argparse.Namespace) -> int:
    """Decode the stored bytes of spot measurements anew; corrections get a new revision. The hub must be stopped."""
    config = load(arguments.config, registry.all_drivers())
    directory = config.hub.state_dir / "journal"
    files = JournalFiles(
        directory, WaveformCodec()
    )  # before anything is made: there must be a journal
    key = HubKey.find(config.hub.state_dir, os.environ)
    clock = SystemClock()
    means = {device.id: Means(device.driver, device.options) for device in config.devices}
    sealed = files.sealed(Stream.VITALS, key)
    journal = None
    if not arguments.dry_run:
        journal = Journal.open(
            directory,
            hub=config.hub.id,
            clock=clock,
            hub_key=key,
            max_bytes=config.journal.max_bytes,
            quota_bytes=budget.quota_bytes(config),
            readers=choose(config.journal.readers, key.reader, config.journal.clinic_key_file),
            segment_bytes=files.segment_bytes or SEGMENT_BYTES,
        )
    try:
        done = redecode(
            files.batches(Stream.VITALS, key), means, mode=config.hub.mode, boot_id=clock.boot_id
        )
        if journal is not None:
            for device, subject, record in done.corrections:
                journal.append(device, record, subject)
                if journal.pending_bytes >= FRAME_BYTES:
                    journal.commit()
    finally:
        if journal is not None:
            journal.close()
    counts = {
        "raw_records": done.raws,
        "corrected": len(done.corrections),
        "failed": done.failed,
        "unknown_device": done.unknown,
        "unreadable": done.unreadable,
        "sealed_frames": sealed,
    }
    if arguments.json:
        print(json.dumps(counts, indent=2))
    else:
        verb = "would be corrected" if arguments.dry_run else "corrected"
        print(
            f"{done.raws} raw records on this hub: {len(done.corrections)} observations {verb},"
            f" {done.failed} failed, {done.unknown} of devices that are not configured"
        )
    if sealed:
        print(
            f"wardlink: {sealed} frames are sealed: the clinic alone can open them, so decoding them"
            " anew is the receiver's to do",
            file=sys.stderr,
        )
    return FAILED if done.failed else OK
