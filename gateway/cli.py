"""The command `wardlink`. Exit status: 0 done, 1 it failed, 2 the configuration or the call is wrong."""

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

import drivers
import gateway
from drivers.contract import BleLink, Driver
from gateway import __version__, memory, status
from gateway.config.load import Config, load
from gateway.journal.errors import JournalError
from gateway.journal.keys import KEY_FILE, HubKey
from gateway.tables import ConfigError

# What only some commands need is imported in them: the half with the devices loads nothing that speaks to a network,
# the half with the network no driver and no kernel, and each is as small as it can be.

OK, FAILED, USAGE = 0, 1, 2
KERNELS = "gateway.signal.compiled"
"""What gateway/signal/jit.py names when it cannot have it: the text says why, and what to do."""
DEFAULT_CONFIG = Path("/etc/wardlink/wardlink.toml")


def same_root() -> bool:
    """Both packages come from one installation: another distribution may have overwritten one of them."""
    roots = {Path(package.__path__[0]).resolve().parent for package in (drivers, gateway)}
    return len(roots) == 1


class Unusable(Exception):  # noqa: N818 - says what is so
    """The installation cannot be used; the text says why."""


def _drivers() -> dict[str, Driver]:
    from drivers import registry  # noqa: PLC0415 - loads the code of third parties

    try:
        return registry.all_drivers()
    except registry.DriverConflict as error:
        raise Unusable(str(error)) from error


def _config(path: Path) -> Config:
    from gateway import budget  # noqa: PLC0415 - only the half with the devices promises days

    config = load(path, _drivers())
    budget.check(config)
    return config


def _complain(path: Path, error: ConfigError) -> None:
    count = len(error.faults)
    print(f"{path}: {count} fault{'s' if count > 1 else ''}", file=sys.stderr)
    for fault in error.faults:
        print(f"  {fault}", file=sys.stderr)


def _serve(main: Callable[[asyncio.Event], Coroutine[object, object, None]]) -> None:
    """Runs until SIGINT or SIGTERM, which end it in order."""

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await main(stop)

    try:
        asyncio.run(serve())
    except ExceptionGroup as group:
        # One task's failure comes wrapped once for each group that it ended.
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, JournalError):
            raise error from group
        raise


def run(arguments: argparse.Namespace) -> int:
    """Run the hub, both halves in one process."""
    config = _config(arguments.config)
    from gateway.app import App  # noqa: PLC0415 - in a checkout the kernels compile at import

    _serve(App(config).run)
    return OK


def acquire(arguments: argparse.Namespace) -> int:
    """Run the half with the devices: collect into the journal; opens no network connection."""
    config = _config(arguments.config)
    from gateway.acquire import Acquire  # noqa: PLC0415 - in a checkout the kernels compile at import

    _serve(Acquire(config).run)
    return OK


def uplink(arguments: argparse.Namespace) -> int:
    """Run the half with the network: deliver the journal; opens no device."""
    config = load(arguments.config, None)
    memory.postpone("urllib", "request")  # paho wants it for proxies, which nobody configures here
    from gateway.deliver import Deliver  # noqa: PLC0415 - speaks to the network

    _serve(Deliver(config, give_back=memory.settle()).run)
    return OK


def receive(arguments: argparse.Namespace) -> int:
    """Receive from the broker, prove that nothing is missing, write a file or a database."""
    from gateway import cli_receive  # noqa: PLC0415 - speaks to the network
    from gateway.receiver.settings import load_receiver  # noqa: PLC0415 - of the other side

    config = load_receiver(arguments.config)
    key = _key(config.state_dir)

    async def until(stop: asyncio.Event) -> None:
        await cli_receive.receive(config, key, stop, as_json=arguments.json)

    _serve(until)
    return OK


def request(arguments: argparse.Namespace) -> int:
    """Ask a hub for its status, live waveform, a stored range or more log; waits for the answers."""
    from gateway import cli_request  # noqa: PLC0415 - speaks to the network

    return cli_request.request(arguments)


def show_status(arguments: argparse.Namespace) -> int:
    """Show what the running hub does."""
    from gateway import view  # noqa: PLC0415 - for people

    runtime_dir = arguments.runtime_dir or _config(arguments.config).hub.runtime_dir
    try:
        state = status.fetch_all(runtime_dir)
    except status.NoStatus as error:
        print(f"wardlink: {error}", file=sys.stderr)
        return FAILED
    print(json.dumps(state, indent=2) if arguments.json else view.state(state))
    return FAILED if state["silent"] else OK


def list_drivers(arguments: argparse.Namespace) -> int:
    """List the drivers and how each was verified."""
    from gateway import view  # noqa: PLC0415 - for people

    rows = [_driver(driver) for driver in _drivers().values()]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return OK
    columns = ("name", "title", "link", "verified", "integrity", "options")
    shown = [[_cell(row[column]) for column in columns] for row in rows]
    print(view.table(("driver", "devices", "link", "verified by", "integrity", "options"), shown))
    print(
        "\nverified by capture: proved against bytes of real devices; vectors: against byte vectors worked from the"
        "\nstandard or the firmware; simulator: against our simulator only. Anything but capture is unverified."
        "\nintegrity framing: the protocol has no checksum, a flipped bit inside a packet cannot be seen."
    )
    return OK


def _cell(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _driver(driver: Driver) -> dict[str, object]:
    link = driver.link
    is_ble = isinstance(link, BleLink)
    line = "Bluetooth LE" if isinstance(link, BleLink) else f"serial {link.baud} 8N1"
    return {
        "name": driver.name,
        "title": driver.title,
        "link": line,
        "services": list(link.services) if isinstance(link, BleLink) else [],
        "found_by": "address" if is_ble else "port",
        "verified": driver.verified,
        "integrity": driver.integrity,
        "source": driver.source,
        "codes": sorted(driver.codes),
        "options": [f"{o.name}{' (required)' if o.required else ''}" for o in driver.options],
    }


def check_config(arguments: argparse.Namespace) -> int:
    """Check a configuration file; every fault is listed."""
    if arguments.schema:
        from gateway import schema  # noqa: PLC0415 - for this alone

        form = "operator" if arguments.operator else "receiver" if arguments.receiver else ""
        made = schema.SCHEMAS[form]() if form else schema.hub_schema(_drivers())
        print(json.dumps(made, indent=2))
        return OK
    from gateway.operator.settings import load_operator  # noqa: PLC0415 - of the other side
    from gateway.receiver.settings import load_receiver  # noqa: PLC0415 - of the other side

    try:
        load_it = load_operator if arguments.operator else load_receiver
        other = arguments.receiver or arguments.operator
        loaded = load_it(arguments.config) if other else _config(arguments.config)
    except ConfigError as error:
        if arguments.json:
            faults = [{"key": f.key, "got": f.got, "expected": f.expected} for f in error.faults]
            print(json.dumps({"ok": False, "faults": faults}, indent=2))
        else:
            _complain(arguments.config, error)
        return USAGE
    devices = len(loaded.devices) if isinstance(loaded, Config) else len(loaded.hubs)
    noun = "devices" if isinstance(loaded, Config) else "hubs"
    if arguments.json:
        print(json.dumps({"ok": True, "faults": [], noun: devices}, indent=2))
    else:
        print(f"{arguments.config}: no faults, {devices} {noun}")
    return OK


def _key(state_dir: Path) -> HubKey:
    """The keys in a state directory, made at the first call."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return HubKey.load_or_create(state_dir / KEY_FILE)


def show_key(arguments: argparse.Namespace) -> int:
    """Print the public key that the other end needs; makes the keys at the first call."""
    from gateway import cli_keys  # noqa: PLC0415 - for this alone

    return cli_keys.show(arguments)


def journal(arguments: argparse.Namespace) -> int:
    """Look into the journal, export it, and keep house in it."""
    raise AssertionError(f"{arguments.subcommand}: the parser calls the row of the subcommand")


def retime(arguments: argparse.Namespace) -> int:
    """Write a receiver's lines with the times that are known by now; the file itself stays."""
    from gateway import cli_retime  # noqa: PLC0415 - for this alone

    return cli_retime.retime(arguments.lines, arguments.output)


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: what it does, and which of the shared options it takes."""

    name: str
    call: Callable[[argparse.Namespace], int]
    config: str = ""
    as_json: bool = False


COMMANDS = (
    Command("run", run, "the hub's configuration"),
    Command("acquire", acquire, "the hub's configuration"),
    Command("uplink", uplink, "the hub's configuration"),
    Command("receive", receive, "the receiver's configuration", as_json=True),
    Command("request", request, "the operator's or a receiver's configuration", as_json=True),
    Command(
        "status",
        show_status,
        "the hub's configuration, which says where its sockets are",
        as_json=True,
    ),
    Command("drivers", list_drivers, as_json=True),
    Command("check-config", check_config, "the file to check", as_json=True),
    Command("key", show_key, "whose key", as_json=True),
    Command("journal", journal),
    Command("retime", retime),
)


def parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The command line. The commands under `wardlink journal` are loaded only where `argv` asks for them."""
    top = argparse.ArgumentParser(
        prog="wardlink",
        description="An edge gateway for connected medical devices: collects, keeps, and proves delivery.",
        epilog="Exit status: 0 done, 1 it failed, 2 the configuration or the call is wrong.",
    )
    top.add_argument("--version", action="version", version=f"wardlink {__version__}")
    top.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="how much to log on standard error (default: info); never patient data",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for row in COMMANDS:
        text = row.call.__doc__ or ""
        sub = commands.add_parser(row.name, help=text, description=text)
        sub.set_defaults(call=row.call)
        if row.config:
            sub.add_argument(
                "--config",
                type=Path,
                default=DEFAULT_CONFIG,
                metavar="FILE",
                help=f"{row.config} (default: {DEFAULT_CONFIG})",
            )
        if row.as_json:
            sub.add_argument("--json", action="store_true", help="print JSON for machines")
        if row.name == "status":
            sub.add_argument(
                "--runtime-dir",
                type=Path,
                metavar="DIR",
                help="ask the hub whose sockets are here instead",
            )
        if row.name in {"check-config", "key"}:
            sub.add_argument("--receiver", action="store_true", help="the file is a receiver's")
            sub.add_argument("--operator", action="store_true", help="the file is an operator's")
        if row.name == "key":
            sub.add_argument(
                "--clinic",
                action="store_true",
                help="of the clinic, by the receiver's file: what hubs seal their journals for",
            )
        if row.name == "retime":
            sub.add_argument("lines", type=Path, metavar="FILE", help="what a receiver wrote")
            sub.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
        if row.name == "journal" and "journal" in argv:
            from gateway import cli_journal  # noqa: PLC0415 - they load what neither half may

            cli_journal.add_subcommands(sub, DEFAULT_CONFIG)
        if row.name == "request" and "request" in argv:
            from gateway import cli_request  # noqa: PLC0415 - speaks to the network

            cli_request.add_options(sub)
        if row.name == "check-config":
            sub.add_argument("--schema", action="store_true", help="print the JSON Schema instead")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    words = sys.argv[1:] if argv is None else argv
    arguments = parser(words).parse_args(words)
    logging.basicConfig(
        level=arguments.log_level.upper(),
        stream=sys.stderr,
        format="%(levelname).1s %(name)s: %(message)s",
    )
    if not same_root():
        print(
            "wardlink: the packages drivers and gateway come from two places; another distribution has overwritten"
            " one of them. Install wardlink into an environment of its own.",
            file=sys.stderr,
        )
        return FAILED
    try:
        call: Callable[[argparse.Namespace], int] = arguments.call
        return call(arguments)
    except ConfigError as error:
        _complain(arguments.config, error)
        return USAGE
    except (JournalError, Unusable) as error:
        print(f"wardlink: {error}", file=sys.stderr)
        return FAILED
    except ImportError as error:
        if error.name != KERNELS:
            raise
        print(f"wardlink: {error}", file=sys.stderr)
        return FAILED
