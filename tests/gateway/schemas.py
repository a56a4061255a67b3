"""The published schemas as a check: in the form that is in docs/, and in a strict one that allows nothing it does not name."""

import contextlib
import json
import re
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from jsonschema import Draft202012Validator
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from referencing import Registry
from referencing.jsonschema import DRAFT202012

DOCS = Path(__file__).parents[2] / "docs"
MESSAGES, LINES = "messages.schema.json", "lines.schema.json"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@cache
def document(name: str) -> Any:
    return json.loads((DOCS / name).read_text(encoding="utf-8"))


def strict(node: Any) -> Any:
    """What stands for itself says `type: object`, and is closed here; a part of it does not, and is a part of it."""
    if isinstance(node, list):
        return [strict(part) for part in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(part) for key, part in node.items()}
    if (
        node.get("type") == "object"
        and "additionalProperties" not in node
        and not isinstance(node.get("oneOf"), list)
    ):
        made["unevaluatedProperties"] = False
    return made


@cache
def validator(name: str, pointer: str, *, is_strict: bool) -> Draft202012Validator:
    """For one definition of one document, or for the whole of it ("")."""
    contents = {n: document(n) for n in (MESSAGES, LINES)}
    registry: Any = Registry().with_resources(
        (n, DRAFT202012.create_resource(strict(c) if is_strict else c)) for n, c in contents.items()
    )
    return Draft202012Validator({"$ref": f"{name}#{pointer}"}, registry=registry)


def faults(found: Any, name: str, pointer: str = "", *, is_strict: bool = True) -> list[str]:
    """Why it does not fit; empty where it does."""
    check = validator(name, pointer, is_strict=is_strict)
    return [f"{e.json_path}: {e.message[:300]}" for e in check.iter_errors(found)]


def resolve(reference: str) -> Any:
    """What a `#/...` of the AsyncAPI document refers to."""
    node = document("asyncapi.json")
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node


def channels() -> Iterator[tuple[str, Any, "re.Pattern[str]"]]:
    """Name, channel and the topics that are on it."""
    for name, channel in document("asyncapi.json")["channels"].items():
        values = {
            key: "|".join((resolve(said["$ref"]) if "$ref" in said else said).get("enum", [NAME]))
            for key, said in channel["parameters"].items()
        }
        pattern = channel["address"]
        for key, value in values.items():
            pattern = pattern.replace(f"{{{key}}}", f"({value})")
        yield name, channel, re.compile(pattern)


def operation_of(channel: str) -> Any:
    """The one that sends or takes what is on it."""
    operations = document("asyncapi.json")["operations"].values()
    (found,) = (o for o in operations if o["channel"]["$ref"] == f"#/channels/{channel}")
    return found


def message_faults(topic: str, payload: bytes, *, is_retained: bool = False) -> list[str]:
    """Why a message is not what docs/asyncapi.json says; empty where it is."""
    found = [(name, channel) for name, channel, topics in channels() if topics.fullmatch(topic)]
    if len(found) != 1:
        return [f"{topic}: on {[name for name, _ in found]}, expected one channel"]
    ((name, channel),) = found
    said = operation_of(name)["bindings"]["mqtt"]["retain"]
    wrong = [] if said or not is_retained else [f"{topic}: retained"]
    if not payload.startswith(b"{"):
        return [*wrong, f"{topic}: no JSON"]
    (schema,) = (
        message["payload"]["schema"]["$ref"]
        for message in (resolve(ref["$ref"]) for ref in channel["messages"].values())
        if "payload" in message
    )
    document_name, _, pointer = schema.partition("#")
    return wrong + [
        f"{topic}{fault}" for fault in faults(json.loads(payload), document_name, pointer)
    ]


@contextlib.contextmanager
def tap(port: int) -> Iterator[list[paho.MQTTMessage]]:
    """Everything that a broker on this machine passes on meanwhile, as any subscriber gets it."""
    heard: list[paho.MQTTMessage] = []
    ready: list[object] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = lambda _client, _data, message: heard.append(message)
    client.on_subscribe = lambda *arguments: ready.append(arguments)
    client.connect("127.0.0.1", port)
    client.subscribe("wardlink/#", qos=1)
    client.loop_start()
    try:
        end = time.monotonic() + 40
        while not ready:
            assert time.monotonic() < end, "no subscription in time"
            time.sleep(0.01)
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


def heard_faults(heard: Iterable[paho.MQTTMessage]) -> list[str]:
    """What is wrong with messages that came over a broker."""
    return [
        fault
        for message in heard
        for fault in message_faults(
            message.topic, bytes(message.payload), is_retained=message.retain
        )
    ]


def channels_of(heard: Iterable[paho.MQTTMessage]) -> set[str]:
    """The last level of the channels that messages were on, without the parameter behind it."""
    return {message.topic.split("/")[4] for message in heard}
