"""The command line of `python -m firmware_sim fleet`."""

import argparse
from pathlib import Path

from firmware_sim.fleet import packets, run
from firmware_sim.fleet.hub import Behaviour

LEVELS = {"5": packets.MQTT_5, "3.1.1": packets.MQTT_3_1_1}


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser("fleet", help="run many hubs against a broker, and measure")
    add_load(parser)
    parser.add_argument(
        "--receiver",
        type=Path,
        metavar="DIR",
        help="start a real receiver there that knows all hubs, wait for its receipts, and prove what it wrote",
    )
    parser.add_argument("--tls", nargs=3, type=Path, metavar=("CA", "CERTIFICATE", "KEY"))
    parser.add_argument("--json", action="store_true", help="figures for machines")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(main=lambda read: run.main(options(read)))


def add_load(parser: argparse.ArgumentParser) -> None:
    """What the hubs do."""
    parser.add_argument("--hubs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--broker",
        type=_broker,
        action="append",
        required=True,
        metavar="HOST:PORT",
        help="again for each node of a cluster",
    )
    parser.add_argument("--mqtt", choices=LEVELS, default="5")
    parser.add_argument("--batch", type=float, default=1.0, metavar="SECONDS", help="of a message")
    parser.add_argument("--waveform", action="store_true", help="one lead at 125 Hz as well")
    parser.add_argument("--heartbeat", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument(
        "--ramp", type=float, default=5.0, metavar="SECONDS", help="in which all connect at first"
    )
    parser.add_argument("--backoff-first", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--backoff-most", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=1)


def _broker(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def options(read: argparse.Namespace) -> run.Options:
    """From what was read."""
    behaviour = Behaviour(
        brokers=tuple(read.broker),
        level=LEVELS[read.mqtt],
        tls=None if read.tls is None else run.tls_context(*read.tls),
        streams=("vitals", "waveform") if read.waveform else ("vitals",),
        batch=read.batch,
        heartbeat=read.heartbeat,
        by_receipt=read.receiver is not None,
        ramp=read.ramp,
        backoff_first=read.backoff_first,
        backoff_most=read.backoff_most,
    )
    return run.Options(
        hubs=read.hubs,
        seconds=read.seconds,
        behaviour=behaviour,
        seed=read.seed,
        receiver=read.receiver,
        receiver_protocol='protocol = "3.1.1"' if read.mqtt == "3.1.1" else "",
        as_json=read.json,
        shows=not read.quiet,
    )
