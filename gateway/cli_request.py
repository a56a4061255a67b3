"""`wardlink request`: asks a hub for its status, live waveform, a stored range or more log, and waits for it."""

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime

from gateway import view
from gateway.clock import SystemClock
from gateway.config.commands import CommandKind
from gateway.journal.entry import Stream
from gateway.journal.keys import KEY_FILE, HubKey
from gateway.operator.request import VALID_S, Operator, RequestError
from gateway.operator.settings import load_operator
from gateway.uplink.command import (
    MAX_MINUTES,
    MAX_VALIDITY_NS,
    Answer,
    Asked,
    LiveWaveform,
    Logging,
    LogLevel,
    Response,
    StatusReport,
    StoredRange,
)
from gateway.uplink.fields import dumps

OK, FAILED = 0, 1
EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)


def moment(text: str) -> int:
    """Wall time in ns of an ISO 8601 time with its zone, or of "now"."""
    if text == "now":
        return SystemClock().read().wall_ns
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if found.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"got {text}, expected a time with its zone, such as {text}Z"
        )
    since = found - EPOCH_START
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def minutes(text: str) -> int:
    """A whole number of minutes that a hub accepts."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_MINUTES:
        raise argparse.ArgumentTypeError(f"got {text}, expected 1 to {MAX_MINUTES}")
    return int(text)


def validity(text: str) -> float:
    """Seconds that a command may hold."""
    most_s = MAX_VALIDITY_NS // 1_000_000_000
    if not text.isdecimal() or not 1 <= int(text) <= most_s:
        raise argparse.ArgumentTypeError(f"got {text}, expected 1 to {most_s} seconds")
    return float(text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The hub, and what it is asked for."""
    parser.add_argument(
        "--valid",
        type=validity,
        default=VALID_S,
        metavar="SECONDS",
        help=f"for how long the command holds (default: {VALID_S:g})",
    )
    parser.add_argument("hub", metavar="HUB", help="which hub, by its name in [hubs]")
    kinds = parser.add_subparsers(required=True, metavar="WHAT", dest="kind")
    live = kinds.add_parser(
        CommandKind.LIVE_WAVEFORM, help="the hub's waveform as it is recorded, for some minutes"
    )
    live.add_argument("--device", required=True, metavar="ID", help="whose waveform is wanted")
    live.set_defaults(asked=lambda a: LiveWaveform(a.device, a.minutes))
    span = kinds.add_parser(CommandKind.RANGE, help="what is stored of a span of time, in full")
    span.add_argument("--stream", required=True, choices=[stream.value for stream in Stream])
    for name, what in (("from", "begins"), ("until", "ends")):
        span.add_argument(
            f"--{name}", required=True, type=moment, dest=name, metavar="TIME",
            help=f'when it {what}: ISO 8601 with the zone, such as 2027-01-15T08:00:00Z, or "now"',
        )  # fmt: skip
    span.set_defaults(asked=lambda a: StoredRange(Stream(a.stream), getattr(a, "from"), a.until))
    kinds.add_parser(CommandKind.STATUS, help="what `wardlink status` says there").set_defaults(
        asked=lambda _arguments: StatusReport()
    )
    logging = kinds.add_parser(CommandKind.LOG_LEVEL, help="more of its log, for some minutes")
    logging.add_argument("level", choices=[level.value for level in LogLevel])
    logging.set_defaults(asked=lambda a: Logging(LogLevel(a.level), a.minutes))
    for timed in (live, logging):
        timed.add_argument(
            "--minutes", required=True, type=minutes, metavar="N", help=f"1 to {MAX_MINUTES}"
        )


def request(arguments: argparse.Namespace) -> int:
    """Asks, shows each answer as it comes; 0 when it was done, 1 when it was refused, failed or not answered."""
    config = load_operator(arguments.config)
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = HubKey.load_or_create(config.state_dir / KEY_FILE)
    operator = Operator(config, key.sign, SystemClock())
    asked: Asked = arguments.asked(arguments)
    told = _print_json if arguments.json else _print
    try:
        last = asyncio.run(operator.ask(arguments.hub, asked, told, valid_s=arguments.valid))
    except RequestError as error:
        if arguments.json:
            print(json.dumps({"answer": None, "reason": error.reason, "text": error.text}))
        print(f"wardlink: {error}", file=sys.stderr)
        return FAILED
    return OK if last.answer is Answer.COMPLETED else FAILED


def _print_json(response: Response) -> None:
    print(response.encode().decode("ascii"), flush=True)


def _print(response: Response) -> None:
    found = response.details.get("status")
    if isinstance(found, dict):
        print(view.state(json.loads(dumps(found))))
        return
    parts = [f"{response.hub} {response.kind or 'command'}: {response.answer}"]
    parts += [f" ({response.reason})"] if response.reason else []
    parts += [f": {response.text}"] if response.text else []
    parts += [f"; {key} {dumps(value)}" for key, value in response.details.items()]
    print("".join(parts), flush=True)
