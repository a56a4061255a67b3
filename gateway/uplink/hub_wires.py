"""What an uplink connects with."""

import random
from collections.abc import Callable

from gateway.config.broker import Broker
from gateway.uplink.echo import EchoWire
from gateway.uplink.nodes import nodes_in_turn
from gateway.uplink.paho_wire import CONNECT_LIMIT_S, PahoWire
from gateway.uplink.wire import Dial, LinkWireFactory, Listener, Outgoing, Session, Wire


def hub_wires(
    broker: Broker,
    client_id: str,
    sign: Callable[[bytes], bytes],
    receipts: str | None = None,
    commands: str | None = None,
    echo: tuple[str, ...] = (),
) -> LinkWireFactory:
    """Each call is a fresh client with a clean session that signs what it sends.

    It goes to the next node of the broker, where it has several.

    Args:
        receipts: the topic filter of its receipts; None when it waits for none.
        commands: the topic filter of its commands; None when nobody may give any.
        echo: topics for which an acknowledgement alone proves nothing: see `echo`.
    """
    nodes = nodes_in_turn(broker, random.SystemRandom())

    async def connect(
        listener: Listener,
        will: Outgoing,
        /,
        *,
        dial: Dial | None = None,
        limit_s: float | None = None,
    ) -> Wire:
        session = Session(client_id, sign, will, (receipts,) if receipts else (), commands, echo)
        proof = EchoWire(listener, echo) if echo else None
        wire = await PahoWire.connect(
            next(nodes),
            session,
            proof or listener,
            limit_s=limit_s or CONNECT_LIMIT_S,
            dial=dial,
        )
        if proof is None:
            return wire
        proof.over(wire, wire.unsubscribe)
        return proof

    return connect
