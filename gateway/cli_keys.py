"""`wardlink key`, and `wardlink journal rotate-key` and `shred`: another key for a stopped hub, or none ever again."""

import argparse
import base64
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from gateway.clock import SystemClock
from gateway.config.load import Config, load
from gateway.journal import keyfile
from gateway.journal.errors import JournalError
from gateway.journal.keys import CREDENTIAL, KEY_FILE, HubKey, KeyKind, credential_path
from gateway.journal.readers import ClinicKey, choose
from gateway.journal.rotation import rotate
from gateway.journal.shred import shred
from gateway.journal.storage import DISK
from gateway.operator.settings import load_operator
from gateway.receiver.settings import load_receiver

OK, FAILED, USAGE = 0, 1, 2
RECEIPT = "shred-receipt.json"
"""Its name in the state directory."""


def _config(arguments: argparse.Namespace) -> Config:
    return load(arguments.config, None)


def show(arguments: argparse.Namespace) -> int:
    """Prints the public key of a hub, a receiver, an operator or the clinic; makes the keys at the first call."""
    if arguments.clinic:
        return _show_clinic(arguments)
    if arguments.receiver or arguments.operator:
        found = (load_receiver if arguments.receiver else load_operator)(arguments.config)
        found.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        name, key = found.id, HubKey.load_or_create(found.state_dir / KEY_FILE)
    else:
        hub = _config(arguments).hub
        hub.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        name, key = hub.id, HubKey.find(hub.state_dir, os.environ)
    text = base64.b64encode(key.verify_key).decode("ascii")
    print(json.dumps({"id": name, "verify_key": text}) if arguments.json else text)
    return OK


def _show_clinic(arguments: argparse.Namespace) -> int:
    """What hubs seal their journals for. The private half stays where the receiver is."""
    receiver = load_receiver(arguments.config)
    if receiver.clinic_key_file is None:
        print(
            f"wardlink: {arguments.config}: there is no receiver.clinic_key_file; say where the"
            " clinic's key is to be",
            file=sys.stderr,
        )
        return USAGE
    text = ClinicKey.load_or_create(receiver.clinic_key_file).public_text
    print(json.dumps({"id": receiver.id, "clinic_key": text}) if arguments.json else text)
    return OK


def rotate_key(arguments: argparse.Namespace) -> int:
    """Give the stopped hub another journal key; the old one opens nothing afterwards."""
    config = _config(arguments)
    path = arguments.key_file or config.hub.state_dir / KEY_FILE
    if arguments.key_file is None and credential_path(os.environ):
        raise JournalError(
            f"hub key: it comes from the credential {CREDENTIAL}, which cannot be replaced from"
            " here; decrypt it to a file, name that with --key-file, and encrypt it again"
        )
    old = HubKey.load(path)
    renewed = old.renewed()
    new = HubKey(renewed, KeyKind.FILE)
    done = rotate(
        config.hub.state_dir / "journal",
        DISK,
        old,
        new,
        choose(config.journal.readers, new.reader, config.journal.clinic_key_file),
        lambda: keyfile.replace(path, renewed),
    )
    if arguments.json:
        print(json.dumps(asdict(done), indent=2))
        return OK
    print(
        f"{path}: renewed; {done.rewrapped} segments wrapped for {config.journal.readers},"
        f" {done.spares_wiped} spare files wiped"
    )
    if done.sealed:
        print(f"{done.sealed} segments are sealed: this hub's key never opened them")
    if done.unreadable:
        print(f"{done.unreadable} segments open with no key that is here, and were left alone")
    return OK


def rotate_key_options(parser: argparse.ArgumentParser) -> None:
    """The options of `rotate-key`."""
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help=f"the hub's key, which is replaced (default: {KEY_FILE} in the state directory)",
    )


def shred_journal(arguments: argparse.Namespace) -> int:
    """Destroy the keys and the journal of a stopped hub, prove it, write a receipt."""
    config = _config(arguments)
    hub = config.hub
    if arguments.hub != hub.id:
        print(
            f"wardlink: --hub: got {arguments.hub!r}, expected {hub.id!r}: type the name of the"
            " hub whose data is to be destroyed for ever",
            file=sys.stderr,
        )
        return USAGE
    target: Path = arguments.receipt or hub.state_dir / RECEIPT
    if target.exists():
        print(f"wardlink: {target}: an earlier receipt is there; move it away", file=sys.stderr)
        return FAILED
    path = hub.state_dir / KEY_FILE
    signed = shred(
        hub.state_dir / "journal",
        DISK,
        SystemClock(),
        HubKey.load(path) if path.exists() else None,
        (path, path.with_name(path.name + ".new")),
    )
    text = json.dumps(signed, indent=2) + "\n"
    target.write_text(text, encoding="ascii")
    print(text, end="")
    print(f"wardlink: the receipt is {target}", file=sys.stderr)
    if signed["signature"] is None:
        print(
            f"wardlink: there was no {path}, so the receipt is not signed; if the hub's key was"
            f" the credential {CREDENTIAL}, destroy that as well",
            file=sys.stderr,
        )
    return OK


def shred_options(parser: argparse.ArgumentParser) -> None:
    """The options of `shred`."""
    parser.add_argument(
        "--hub", required=True, metavar="ID", help="the hub's name, typed: there is no way back"
    )
    parser.add_argument(
        "--receipt",
        type=Path,
        metavar="FILE",
        help=f"where to write the receipt (default: {RECEIPT} in the state directory)",
    )
