"""Whatever a hub and a receiver say over a real broker, and every line that is written of it, is what docs/ says."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish as paho_publish
from paho.mqtt.enums import MQTTProtocolVersion

from drivers.model import Event, EventKind
from gateway.clock import ClockReading, ClockState
from gateway.journal.entry import Batch, Entry, Stream, stream_of
from gateway.receiver.retime import learn_lines, retime_line
from gateway.uplink.fields import dumps
from tests.gateway import schemas
from tests.gateway.receiver.test_delivery import receipting_receiver, receipting_uplink
from tests.gateway.uplink.bench import (
    EPOCH,
    HUB,
    MemoryJournal,
    Mosquitto,
    mosquitto,
    read_lines,
    running,
    subscribed,
    until,
)
from tests.gateway.uplink.test_schemas import RECORDS

pytestmark = pytest.mark.system
STORED = 2 * len(RECORDS) + 2
UNSET = ClockReading(5, 6, ClockState.UNSET)
FAULT = Event(EventKind.FAULT, 4, "disk")


async def deliver(folder: Path, server: Mosquitto) -> None:
    """Every shape of record twice; an entry that the journal lost, a message that nobody signed; then good-bye."""
    journal = MemoryJournal()
    receiver = receipting_receiver(folder, server.broker, grace_s=0.1)
    uplink = receipting_uplink(journal, server.broker)
    async with running(receiver.run(), subscribed(receiver, uplink)):
        for record in RECORDS * 2:
            stream = stream_of(record)
            entry = Entry(journal.high_water(stream) + 1, "belt", record, "p-1")
            journal.put(stream, (entry,))
        lost = journal.high_water(Stream.AUDIT) + 1
        journal.put(Stream.AUDIT, (Entry(lost + 1, "", RECORDS[-1]),))
        later = Entry(journal.high_water(Stream.ALARM) + 1, "", FAULT)
        journal.batches[Stream.ALARM].append(
            Batch(HUB.id, Stream.ALARM, EPOCH, "boot-2", UNSET, (later,), stamped=UNSET)
        )
        uplink.wake()
        await until(lambda: receiver.report().entries == STORED, "all entries")
        await until(lambda: receiver.report().open_gaps == 1, "a gap")
        await asyncio.to_thread(
            paho_publish.single, HUB.topic("vitals"), b"{}", qos=1, hostname="127.0.0.1",
            port=server.port, protocol=MQTTProtocolVersion.MQTTv5,
        )  # fmt: skip
        await until(lambda: receiver.report().rejected == 1, "rejected")
        assert await uplink.drain(20)
        await until(lambda: "offline" in (folder / "lines.jsonl").read_text(), "the last status")


def test_what_hub_and_receiver_say_and_write_is_what_the_documents_say(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as server, schemas.tap(server.port) as heard:
        asyncio.run(deliver(tmp_path, server))
        with schemas.tap(server.port) as kept:
            asyncio.run(until(lambda: bool(kept), "what is retained"))
    (nobodys,) = [message for message in heard if message.payload == b"{}"]
    assert schemas.heard_faults([nobodys])
    heard.remove(nobodys)
    assert schemas.heard_faults([*heard, *kept]) == []
    assert [message.topic for message in kept] == [HUB.topic("status")]
    assert schemas.channels_of(heard) == {*Stream, "status", "heartbeat", "receipt"}
    lines = read_lines(tmp_path / "lines.jsonl")
    assert {line["type"] for line in lines} == LINES_SEEN
    assert [fault for line in lines for fault in schemas.faults(line, schemas.LINES)] == []
    journals = learn_lines((tmp_path / "lines.jsonl").read_bytes().splitlines())
    again = [json.loads(retime_line(dumps(line).encode(), journals)) for line in lines]
    assert [fault for line in again for fault in schemas.faults(line, schemas.LINES)] == []
    (fault,) = (
        line["record"] for line in again if line["type"] == "entry" and line["boot_id"] == "boot-2"
    )
    assert fault["time"] is None
    assert fault["not_before"]
    for line in {line["type"]: line for line in lines}.values():
        check_mutations(line)


LINES_SEEN = {"entry", "gap", "clock", "heartbeat", "status", "rejected"}


def check_mutations(line: dict[str, Any]) -> None:
    """Each member of a line is needed, and none is of any type."""
    for key, kept in list(line.items()):
        line[key] = [kept]
        assert schemas.faults(line, schemas.LINES, is_strict=False), f"{key}: a list"
        del line[key]
        assert schemas.faults(line, schemas.LINES, is_strict=False), f"{key}: absent"
        line[key] = kept
    line["surplus"] = 1
    assert schemas.faults(line, schemas.LINES)
    assert schemas.faults(line, schemas.LINES, is_strict=False) == []
    del line["surplus"]
