"""Which node is next."""

import random
from collections import Counter
from itertools import islice

from gateway.config.broker import Broker
from gateway.uplink.nodes import nodes_in_turn

CLUSTER = Broker("a", 8883, keepalive_s=7, other_hosts=("b", "c"))


def test_each_connection_goes_to_the_next_node_and_all_have_their_turn() -> None:
    for seed in range(20):
        hosts = [n.host for n in islice(nodes_in_turn(CLUSTER, random.Random(seed)), 9)]
        assert sorted(hosts[:3]) == ["a", "b", "c"]
        assert hosts == hosts[:3] * 3


def test_hubs_begin_at_each_node_alike() -> None:
    first = Counter(next(nodes_in_turn(CLUSTER, random.Random(seed))).host for seed in range(3000))
    assert all(900 < count < 1100 for count in first.values())
    # Of those that were at "a", as many go on to "b" as to "c".
    second = Counter(
        tuple(n.host for n in islice(nodes_in_turn(CLUSTER, random.Random(seed)), 2))
        for seed in range(3000)
    )
    assert all(400 < count < 600 for count in second.values())
    assert len(second) == 6


def test_a_node_differs_from_its_broker_by_its_host_alone() -> None:
    node = next(nodes_in_turn(Broker("a", 8883, keepalive_s=7), random.Random(1)))
    assert node == Broker("a", 8883, keepalive_s=7)
