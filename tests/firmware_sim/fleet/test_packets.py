"""Packets against bytes that were put together by hand from chapter 3 of both standards."""

import random

import pytest

from firmware_sim.fleet import packets
from firmware_sim.fleet.packets import MQTT_3_1_1, MQTT_5, Kind, Packet, PacketError, Reader, Will


def test_connect_carries_a_retained_will_at_qos_1() -> None:
    will = Will("t/s", b"gone")
    assert packets.connect(MQTT_3_1_1, "hub", 30, will) == bytes.fromhex(
        "101a 00044d515454 04 2e 001e 0003687562 0003742f73 0004676f6e65".replace(" ", "")
    )
    assert packets.connect(MQTT_5, "hub", 30, will) == bytes.fromhex(
        "101c 00044d515454 05 2e 001e 00 0003687562 00 0003742f73 0004676f6e65".replace(" ", "")
    )


def test_publish_and_subscribe_go_at_qos_1() -> None:
    assert packets.publish(MQTT_3_1_1, 7, "a/b", b"xy", retain=True) == bytes.fromhex(
        "33090003612f6200077879"
    )
    assert packets.publish(MQTT_5, 7, "a/b", b"xy", retain=False) == bytes.fromhex(
        "320a0003612f620007007879"
    )
    assert packets.subscribe(MQTT_5, 1, "a/+") == bytes.fromhex("8209000100 0003612f2b01")
    assert packets.puback(513) == bytes.fromhex("40020201")


def test_a_long_packet_has_a_longer_length() -> None:
    packet = packets.publish(MQTT_3_1_1, 1, "t", bytes(20_000), retain=False)
    assert packet[:4] == bytes.fromhex("32a59c01")
    assert len(packet) == 4 + 5 + 20_000


CAME = {
    "20020000": Packet(Kind.CONNACK),
    "20020005": Packet(Kind.CONNACK, code=5),
    "40020007": Packet(Kind.PUBACK, 7),
    "9003000101": Packet(Kind.SUBACK, 1),
    "9003000180": Packet(Kind.SUBACK, 1, 0x80),
    "3207000174000978790a"[:18]: Packet(Kind.PUBLISH, 9, topic="t", payload=b"xy"),
    "300500017478" + "79": Packet(Kind.PUBLISH, 0, topic="t", payload=b"xy"),
    "d000": Packet(Kind.PINGRESP),
}
CAME_5 = {
    "2009000006 210014 22000a": Packet(Kind.CONNACK, receive_maximum=20),
    "2003008700": Packet(Kind.CONNACK, code=0x87),
    "2013000010 11000003e8 12 0003612d62 24 01 21 0005".replace(" ", ""): Packet(
        Kind.CONNACK, receive_maximum=5
    ),
    "4004000797 00": Packet(Kind.PUBACK, 7, 0x97),
    "900400010001": Packet(Kind.SUBACK, 1),
    "320a0001740009 02 0101 7879": Packet(Kind.PUBLISH, 9, topic="t", payload=b"xy"),
    "e0028e00": Packet(Kind.DISCONNECT, code=0x8E),
}


@pytest.mark.parametrize(
    ("level", "rows"), [(MQTT_3_1_1, CAME), (MQTT_5, CAME_5)], ids=["3.1.1", "5"]
)
def test_what_a_broker_sends_is_read_however_it_is_cut(level: int, rows: dict[str, Packet]) -> None:
    stream = b"".join(map(bytes.fromhex, rows))
    for seed in range(20):
        dice, reader, at, found = random.Random(seed), Reader(level), 0, []
        while at < len(stream):
            end = at + dice.randint(1, 9)
            found += list(reader.feed(stream[at:end]))
            at = end
        assert found == list(rows.values())


@pytest.mark.parametrize("data", ["30ffffffff01", "1000", "4000", "30030005ff"])
def test_what_no_broker_may_send_is_an_error(data: str) -> None:
    with pytest.raises(PacketError):
        list(Reader(MQTT_3_1_1).feed(bytes.fromhex(data)))


def test_any_bytes_give_packets_or_the_one_error() -> None:
    for seed in range(2000):
        dice = random.Random(seed)
        try:
            list(Reader(dice.choice([4, 5])).feed(dice.randbytes(dice.randint(1, 60))))
        except PacketError:
            continue
