"""What `wardlink journal` shows without changing anything: list, verify, export, days."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from drivers import registry
from gateway import budget, view
from gateway.clock import ClockReading, ClockState
from gateway.config.load import Config, load
from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.inspect import JournalFiles
from gateway.journal.keys import KEY_FILE, HubKey
from gateway.journal.scan import Damage
from gateway.uplink.fields import Json, dumps
from gateway.uplink.payload import entry_fields
from gateway.uplink.times import iso_time, retimed
from gateway.waveform import WaveformCodec

OK, FAILED = 0, 1
PROGRESS_SEGMENTS = 16
FORMATS = ("jsonl", "edf")


def place_options(parser: argparse.ArgumentParser) -> None:
    """Where the journal is."""
    parser.add_argument(
        "--journal",
        type=Path,
        metavar="DIR",
        help="look at this journal, say a copy, and not at that of the configuration",
    )


def key_options(parser: argparse.ArgumentParser) -> None:
    """Where the journal is, and what opens it."""
    place_options(parser)
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help=f"the hub's key (default: {KEY_FILE} beside the journal)",
    )


def export_options(parser: argparse.ArgumentParser) -> None:
    """What to write, and where to."""
    key_options(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="JSON lines as a receiver writes them, or EDF+ files of the waveforms (default: jsonl)",
    )
    parser.add_argument(
        "--stream", choices=list(Stream), action="append", help="this stream only; may be repeated"
    )
    parser.add_argument("--device", metavar="ID", help="this device only")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="a new file, or for EDF+ a directory (default: standard output; for EDF+ this directory)",
    )


def _config(arguments: argparse.Namespace) -> Config:
    return load(arguments.config, registry.all_drivers())


def _directory(arguments: argparse.Namespace) -> Path:
    given: Path | None = arguments.journal
    return given or _config(arguments).hub.state_dir / "journal"


def _key(arguments: argparse.Namespace, directory: Path) -> HubKey | None:
    """The hub's key; None where there is no file. None is ever made here."""
    path: Path = arguments.key_file or directory.parent / KEY_FILE
    if path.exists():
        return HubKey.load_or_create(path)
    if arguments.key_file is not None:
        raise JournalError(f"hub key {path}: got no file, expected the hub's key")
    return None


def list_streams(arguments: argparse.Namespace) -> int:
    """List what the journal holds, stream by stream."""
    files = JournalFiles(_directory(arguments), WaveformCodec())
    found = [files.summary(stream) for stream in Stream]
    if arguments.json:
        document = {"hub": files.hub, "epoch": files.epoch, "streams": [asdict(s) for s in found]}
        print(json.dumps(document, indent=2))
        return OK
    head = ("stream", "segments", "MB", "first", "last", "acknowledged", "given up", "from", "to")
    rows = [
        (
            s.stream,
            str(s.segments),
            f"{s.size_bytes / 1e6:.1f}",
            str(s.first),
            str(s.last),
            str(s.acknowledged),
            str(s.missing),
            _moment(s.begins),
            _moment(s.ends),
        )
        for s in found
    ]
    print(f"hub {files.hub}  epoch {files.epoch}\n\n{view.table(head, rows)}")
    return OK


def _moment(reading: ClockReading | None) -> str:
    if reading is None:
        return ""
    if reading.state is ClockState.UNSET:
        return f"{reading.state}"
    error = "" if reading.error_ns is None else f" within {reading.error_ns / 1e6:.0f} ms"
    return f"{(iso_time(reading.wall_ns) or '?')[:19]}Z {reading.state}{error}"


def verify(arguments: argparse.Namespace) -> int:
    """Walk over every frame; exit status 1 when anything is damaged."""
    directory = _directory(arguments)
    files, key = JournalFiles(directory, WaveformCodec()), _key(arguments, directory)
    verdicts = []
    for stream in Stream:
        total = len(files.places(stream))
        for verdict in files.verify(stream, key):
            if verdict.segments % PROGRESS_SEGMENTS == 0:
                _progress(f"{stream}: {verdict.segments} of {total} segments")
        verdicts.append(verdict)
    _progress("")
    damaged = any(verdict.damage for verdict in verdicts)
    if arguments.json:
        document = {"ok": not damaged, "streams": [asdict(verdict) for verdict in verdicts]}
        print(json.dumps({"hub": files.hub, "epoch": files.epoch} | document, indent=2))
        return FAILED if damaged else OK
    rows = [
        (
            v.stream,
            str(v.segments),
            str(v.frames),
            str(v.records),
            str(v.unopened),
            str(len(v.damage)),
        )
        for v in verdicts
    ]
    print(view.table(("stream", "segments", "frames", "records", "unopened", "damaged"), rows))
    for verdict in verdicts:
        for damage in verdict.damage:
            print(
                f"{damage.stream} {damage.first_sequence} to {damage.last_sequence}: {damage.reason}"
            )
    if any(verdict.unopened for verdict in verdicts):
        print(
            "\nunopened: checked by checksum and chain alone. Their key is not here: it is the clinic's, or that of"
            "\nanother hub; name a key with --key-file."
        )
    return FAILED if damaged else OK


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def export(arguments: argparse.Namespace) -> int:
    """Write the journal out: every record as a JSON line, or the waveforms as EDF+."""
    directory = _directory(arguments)
    files, key = JournalFiles(directory, WaveformCodec()), _key(arguments, directory)
    if arguments.format == "edf":
        return _export_edf(arguments, files, key)
    gaps = 0
    with _sink(arguments.output) as write:
        for stream in arguments.stream or list(Stream):
            for line in lines(files, key, Stream(stream), arguments.device):
                gaps += line["type"] == "gap"
                write(dumps(line) + "\n")
    if gaps:
        print(f"{gaps} gaps: what could not be read is named in the lines", file=sys.stderr)
    return OK


def _export_edf(arguments: argparse.Namespace, files: JournalFiles, key: HubKey | None) -> int:
    try:
        # Imported here: it comes with an extra, and no other command needs it.
        from gateway.edf import export_waveforms  # noqa: PLC0415
    except ImportError as error:
        text = "EDF+: edfio is not installed; install the extra wardlink[edf]"
        raise JournalError(text) from error
    done = export_waveforms(files, key, arguments.device, arguments.output or Path())
    print(f"{done.files} files, {done.samples} samples, {done.gaps} gaps", file=sys.stderr)
    for text in done.left_out:
        print(f"left out: {text}", file=sys.stderr)
    return FAILED if done.left_out else OK


@contextmanager
def _sink(path: Path | None) -> Iterator[Callable[[str], object]]:
    if path is None:
        yield sys.stdout.write
        return
    try:
        file: TextIO = path.open("x", encoding="ascii")
    except OSError as error:
        raise JournalError(f"{path}: cannot be written: {error}; name a new file") from error
    with file:
        yield file.write


def lines(
    files: JournalFiles, key: HubKey | None, stream: Stream, device: str | None
) -> Iterator[dict[str, Json]]:
    """What a receiver would have written, but for the moment of receipt; what cannot be read is a gap."""
    head: dict[str, Json] = {"hub": files.hub, "stream": stream, "epoch": files.epoch}
    timeline = files.timeline()
    for batch in files.batches(stream, key):
        if isinstance(batch, Damage):
            first, last = batch.first_sequence, batch.last_sequence
            span: dict[str, Json] = {"first": first, "last": last, "count": last - first + 1}
            yield {"type": "gap", **head, **span, "cause": batch.reason}
            continue
        for entry in batch.entries:
            if device is not None and entry.device != device:
                continue
            record = retimed(entry_fields(entry, batch.clock), timeline, batch)
            name = record.pop("device")
            yield {
                "type": "entry",
                **head,
                "sequence": entry.sequence,
                "device": name,
                "boot_id": batch.boot_id,
                "record": record,
            }


def days(arguments: argparse.Namespace) -> int:
    """Show how long the journal goes on without a network before its oldest records give way."""
    config = _config(arguments)
    files = JournalFiles(_directory(arguments), WaveformCodec())
    left = [asdict(line) for line in budget.left(config, files.status(config.journal.max_bytes))]
    print(json.dumps(left, indent=2) if arguments.json else view.room(left))
    return OK
