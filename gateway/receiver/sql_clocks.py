"""What receivers know of the hubs' clocks, in their database: a row for each boot. Its reader has the table `clocks`."""

from collections.abc import Collection

from gateway.receiver.clocks import boot_fields, read_boot
from gateway.receiver.database import Database
from gateway.receiver.ledger import Key, Ledger
from gateway.receiver.tables import BOOTS, Row, text
from gateway.timeline import Boot, Timeline
from gateway.uplink.fields import dumps, loads

Stored = dict[tuple[str, str], dict[str, Boot]]
"""By hub and epoch: the boots of the open transaction, as they were read."""


def read_clocks(database: Database, keys: Collection[Key], ledger: Ledger) -> Stored:
    """Puts what is known of these journals' clocks into the ledger, and keeps the rows until the transaction ends.

    Two receivers that hear of a new boot at once both make its row, and the later one's knowledge stands: it is true,
    and the next heartbeat completes it.
    """
    stored: Stored = {}
    for hub, epoch in sorted({(key.hub, key.epoch) for key in keys}):
        found = database.run(
            f"SELECT CAST(state AS text) FROM {BOOTS.name}"
            f" WHERE {database.equal(('hub', 'epoch'))} ORDER BY boot_id{database.dialect.lock}",
            (hub, epoch),
        )
        boots = [read_boot(loads(state.encode())) for (state,) in found.fetchall()]
        stored[hub, epoch] = {boot.boot_id: boot for boot in boots}
        ledger.timelines[hub, epoch] = Timeline(boots)
    return stored


def write_clocks(database: Database, stored: Stored, ledger: Ledger) -> None:
    """Writes the boots of which something is known that was not."""
    rows = [
        _row(hub, epoch, boot)
        for (hub, epoch), timeline in ledger.timelines.items()
        for boot in timeline
        if boot != stored.get((hub, epoch), {}).get(boot.boot_id)
    ]
    if rows:
        database.insert({BOOTS.name: (BOOTS, rows)})
        database.update(BOOTS, ("state",), rows)


def _row(hub: str, epoch: str, boot: Boot) -> Row:
    state = dumps(boot_fields(boot))
    return {"hub": hub, "epoch": epoch, "boot_id": text(boot.boot_id), "state": state}
