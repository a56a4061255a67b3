"""Which node of the broker a connection goes to. Pure: randomness is handed in."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

from gateway.config.broker import Broker


def nodes_in_turn(broker: Broker, rng: random.Random) -> Iterator[Broker]:
    """The broker at one of its hosts, for each connection the next one, without an end.

    The order is drawn once, so that hubs spread over the nodes, and those of a node that died over the others. When each
    is tried is for the back-off to say.
    """
    hosts = [broker.host, *broker.other_hosts]
    rng.shuffle(hosts)
    return cycle([replace(broker, host=host, other_hosts=()) for host in hosts])
