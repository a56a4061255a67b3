"""The JSON Schemas of the two configuration files, made from the same keys that the program reads."""

from collections.abc import Mapping
from pathlib import Path

from drivers.contract import Driver
from gateway.config.broker import BROKER_KEYS, tls_keys
from gateway.config.commands import OPERATOR_KEYS
from gateway.config.delivery import DELIVERY_KEYS, PAYLOAD_KEYS
from gateway.config.device import device_keys
from gateway.config.hub import hub_keys
from gateway.config.hubs import HUBS_SCHEMA
from gateway.config.journal import journal_keys
from gateway.config.kinds import NAME, VERIFY_KEY
from gateway.config.links import LINK_KEYS
from gateway.operator.settings import operator_keys
from gateway.receiver.settings import receiver_keys
from gateway.tables import schema_of


def _broker_schema() -> dict[str, object]:
    tls = {
        **schema_of(tls_keys(Path())),
        "description": "mutual TLS; without it the host must be this machine",
    }
    return schema_of(BROKER_KEYS, {"tls": tls})


def hub_schema(drivers: Mapping[str, Driver]) -> dict[str, object]:
    """The JSON Schema of the hub's configuration file."""
    here = Path()
    receivers = {"type": "object", "additionalProperties": VERIFY_KEY.schema}
    operators = {
        "type": "object",
        "propertyNames": NAME.schema,
        "additionalProperties": schema_of(OPERATOR_KEYS),
    }
    devices = []
    for driver in drivers.values():
        form = schema_of(device_keys(here, driver))
        properties = form["properties"]
        if isinstance(properties, dict):
            properties["driver"] = {"const": driver.name, "description": driver.title}
        devices.append(form)
    root = schema_of(
        (),
        {
            "hub": schema_of(hub_keys(here)),
            "broker": _broker_schema(),
            "delivery": schema_of(
                DELIVERY_KEYS, {"receivers": receivers, "payloads": schema_of(PAYLOAD_KEYS)}
            ),
            "journal": schema_of(journal_keys(here)),
            "commands": schema_of((), {"operators": operators}),
            "link": {"type": "array", "items": schema_of(LINK_KEYS)},
            "device": {"type": "array", "items": {"oneOf": devices}},
        },
    )
    return _headed(root, "Wardlink hub", ["hub", "broker"])


def receiver_schema() -> dict[str, object]:
    """The JSON Schema of the receiver's configuration file."""
    root = schema_of(
        (),
        {
            "receiver": schema_of(receiver_keys(Path())),
            "broker": _broker_schema(),
            "hubs": HUBS_SCHEMA,
        },
    )
    return _headed(root, "Wardlink receiver", ["receiver", "broker", "hubs"])


def operator_schema() -> dict[str, object]:
    """The JSON Schema of the operator's configuration file."""
    root = schema_of(
        (),
        {
            "operator": schema_of(operator_keys(Path())),
            "broker": _broker_schema(),
            "hubs": HUBS_SCHEMA,
        },
    )
    return _headed(root, "Wardlink operator", ["operator", "broker", "hubs"])


SCHEMAS = {"receiver": receiver_schema, "operator": operator_schema}
"""Of the files that are not a hub's."""


def _headed(root: dict[str, object], title: str, required: list[str]) -> dict[str, object]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **root,
        "required": required,
    }
