"""What providers take on one connection: a table of limits, and what of a configuration would break one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    """The version of MQTT. What is said means the same in both."""

    V5 = "5"
    V311 = "3.1.1"


class ProfileName(StrEnum):
    """Whose broker it is."""

    GENERIC = "generic"
    AWS_IOT_CORE = "aws-iot-core"
    NATS = "nats"


@dataclass(frozen=True, slots=True)
class Profile:
    """The limits of one connection. The defaults are those of MQTT itself (3.1.1 and 5.0, 1.5 and 2.2).

    Attributes:
        packet_bytes: of a whole PUBLISH, so that a limit on its payload is kept as well.
        publishes_per_s: None where there is no limit.
        unacknowledged: messages of QoS 1 on their way to the broker.
    """

    protocols: tuple[Protocol, ...] = tuple(Protocol)
    packet_bytes: int = 268_435_455
    publishes_per_s: int | None = None
    unacknowledged: int = 65_535
    topic_slashes: int = 65_535
    topic_bytes: int = 65_535
    client_id_bytes: int = 65_535


PROFILES = {
    ProfileName.GENERIC: Profile(),
    ProfileName.AWS_IOT_CORE: Profile(
        packet_bytes=128 * 1024,
        publishes_per_s=100,
        unacknowledged=100,
        topic_slashes=7,
        topic_bytes=256,
        client_id_bytes=128,
    ),
    ProfileName.NATS: Profile(protocols=(Protocol.V311,), packet_bytes=1024 * 1024),
}
"""Their sources are in docs/brokers.md. None of them is asked for QoS 2, which AWS IoT Core has not."""


def misfits(
    profile: Profile, protocol: Protocol, client_id: str, topics: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """What a provider would not take, as what it is and what is expected."""
    if protocol not in profile.protocols:
        yield f"protocol {protocol}", f"protocol {' or '.join(profile.protocols)}"
    if len(client_id) > profile.client_id_bytes:
        shorter = "shorter names of hub and tenant"
        yield (
            f"client identifier {client_id} of {len(client_id)} bytes",
            f"at most {profile.client_id_bytes}: {shorter}",
        )
    for topic in topics:
        if len(topic) > profile.topic_bytes:
            yield f"topic {topic} of {len(topic)} bytes", f"at most {profile.topic_bytes}"
        if topic.count("/") > profile.topic_slashes:
            yield (
                f"topic {topic} with {topic.count('/')} slashes",
                f"at most {profile.topic_slashes}",
            )
