"""The commands under `wardlink journal`. Each is a row of SUBCOMMANDS, its options beside it."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway import cli_inspect, cli_keys, cli_redecode


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One command under `wardlink journal`: what it does, and its own options."""

    name: str
    call: Callable[[argparse.Namespace], int]
    options: Callable[[argparse.ArgumentParser], None]
    as_json: bool = False


SUBCOMMANDS = (
    Subcommand("list", cli_inspect.list_streams, cli_inspect.place_options, as_json=True),
    Subcommand("verify", cli_inspect.verify, cli_inspect.key_options, as_json=True),
    Subcommand("export", cli_inspect.export, cli_inspect.export_options),
    Subcommand("redecode", cli_redecode.redecode_journal, cli_redecode.options, as_json=True),
    Subcommand("days", cli_inspect.days, cli_inspect.place_options, as_json=True),
    Subcommand("rotate-key", cli_keys.rotate_key, cli_keys.rotate_key_options, as_json=True),
    Subcommand("shred", cli_keys.shred_journal, cli_keys.shred_options),
)


def add_subcommands(parser: argparse.ArgumentParser, default_config: Path) -> None:
    """Hangs the group under its parser. Every command takes `--config`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="subcommand")
    for row in SUBCOMMANDS:
        text = row.call.__doc__ or ""
        sub = commands.add_parser(row.name, help=text, description=text)
        sub.set_defaults(call=row.call)
        sub.add_argument(
            "--config",
            type=Path,
            default=default_config,
            metavar="FILE",
            help=f"the hub's configuration (default: {default_config})",
        )
        if row.as_json:
            sub.add_argument("--json", action="store_true", help="print JSON for machines")
        row.options(sub)
