"""[broker], of a hub or of a receiver."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config.kinds import HOST, build
from gateway.config.profile import PROFILES, Profile, ProfileName, Protocol
from gateway.tables import Key, Reader, file, integer, list_of, one_of


@dataclass(frozen=True, slots=True)
class Tls:
    """Mutual TLS: whom to trust, and who we are."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to deliver. Without `tls` each host must be loopback. `other_hosts`: more nodes of the same broker."""

    host: str
    port: int
    tls: Tls | None = None
    protocol: Protocol = Protocol.V5
    keepalive_s: int = 30
    window_bytes: int = 131_072
    other_hosts: tuple[str, ...] = ()
    backoff_first_s: int = 1
    backoff_most_s: int = 120
    profile: ProfileName = ProfileName.GENERIC

    @property
    def limits(self) -> Profile:
        """What its provider takes."""
        return PROFILES[self.profile]


def tls_keys(folder: Path) -> tuple[Key, ...]:
    """The keys of [broker.tls]."""
    return (
        Key(
            "ca_file",
            file(folder),
            "PEM: the authority that signed the broker's certificate",
            required=True,
        ),
        Key("certificate_file", file(folder), "PEM: this hub's certificate", required=True),
        Key("key_file", file(folder), "PEM: its private key", required=True),
    )


BROKER_KEYS = (
    Key("host", HOST, "the MQTT broker", required=True),
    Key(
        "other_hosts",
        list_of(HOST),
        "more nodes of the same broker, at the same port: after a failure the next one is tried",
        (),
    ),
    Key("port", integer(1, 65535), "its port; 8883 with TLS", 8883),
    Key(
        "protocol",
        one_of(Protocol),
        'the version of MQTT: "5", or "3.1.1" for a broker that has no 5',
        Protocol.V5,
    ),
    Key(
        "profile",
        one_of(ProfileName),
        "whose broker it is: its limits are kept",
        ProfileName.GENERIC,
    ),
    Key("keepalive_s", integer(5, 3600, "seconds"), "MQTT keep-alive", 30),
    Key(
        "window_bytes",
        integer(16_384, 4_194_304, "bytes"),
        "most bytes sent and not yet acknowledged: about bandwidth times round trip",
        131_072,
    ),
    Key(
        "backoff_first_s",
        integer(1, 3600, "seconds"),
        "after a lost connection the next try comes at random within this time; it doubles with each failure",
        1,
    ),
    Key("backoff_most_s", integer(1, 3600, "seconds"), "until it is this", 120),
)


def is_loopback(host: str) -> bool:
    """Whether this is surely this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hosts(found: object) -> tuple[object, ...]:
    return found if isinstance(found, tuple) else ()


def read_broker(reader: Reader, root: Mapping[str, object], folder: Path) -> Broker | None:
    """[broker], of a hub or of a receiver."""
    table = reader.table(root.get("broker"), "broker")
    if table is None:
        return None
    values = reader.values(table, "broker", BROKER_KEYS, nested=("tls",))
    tls_table = reader.table(table.get("tls"), "broker.tls", required=False)
    tls = None
    if tls_table is not None:
        tls = build(Tls, reader, reader.values(tls_table, "broker.tls", tls_keys(folder)))
    hosts = [values["host"], *_hosts(values["other_hosts"])]
    for host in hosts if tls_table is None else ():
        if isinstance(host, str) and not is_loopback(host):
            expected = f"a table: {host} is not this machine, so only TLS will do"
            reader.fault("broker.tls", "nothing", expected)
            break
    if len(set(hosts)) < len(hosts):
        reader.fault("broker.other_hosts", f"{values['host']} again", "nodes beside broker.host")
    first_s, most_s = values["backoff_first_s"], values["backoff_most_s"]
    if isinstance(first_s, int) and isinstance(most_s, int) and first_s > most_s:
        reader.fault(
            "broker.backoff_first_s", f"{first_s} s", f"at most backoff_most_s, {most_s} s"
        )
    return build(Broker, reader, {**values, "tls": tls})
