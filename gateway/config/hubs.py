"""[hubs]: whose word counts, for who listens to hubs."""

from collections.abc import Mapping

from gateway.config.kinds import VERIFY_KEY
from gateway.tables import Key, Reader

HUBS_SCHEMA = {"type": "object", "additionalProperties": VERIFY_KEY.schema, "minProperties": 1}


def read_hubs(reader: Reader, root: Mapping[str, object]) -> Mapping[str, object]:
    """Each hub's verify key in base64."""
    table = reader.table(root.get("hubs"), "hubs") or {}
    if root.get("hubs") is not None and not table:
        reader.fault("hubs", "no hub", 'one line a hub: "hub-id" = "its verify key"')
    return reader.values(
        table, "hubs", tuple(Key(name, VERIFY_KEY, "the hub's verify key") for name in table)
    )
