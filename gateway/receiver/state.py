"""How a track of the ledger is written down, in a state file and in a database alike."""

from gateway.journal.entry import Stream
from gateway.receiver.ledger import Cause, Hole, Key, Span, Track
from gateway.uplink.fields import Fields, Json


def key_fields(key: Key) -> dict[str, Json]:
    """Whose track it is."""
    return {"hub": key.hub, "stream": key.stream, "epoch": key.epoch}


def read_key(fields: Fields) -> Key:
    """What `key_fields` made. Raises PayloadError."""
    return Key(fields.text("hub"), fields.choice("stream", Stream), fields.text("epoch"))


def track_fields(track: Track) -> dict[str, Json]:
    """All that a track knows."""
    return {
        "floor": track.floor,
        "high": track.high,
        "claimed": track.claimed,
        "holes": [
            {
                "first": hole.span.first,
                "last": hole.span.last,
                "cause": hole.cause,
                "named": hole.named,
                "since_ns": hole.since_ns,
            }
            for hole in track.holes
        ],
    }


def read_track(fields: Fields, since_ns: int | None = None) -> Track:
    """What `track_fields` made; with `since_ns` every hole dates from then. Raises PayloadError."""
    return Track(
        fields.integer("floor", least=0),
        fields.integer("high", least=0),
        fields.integer("claimed", least=0),
        [_hole(hole, since_ns) for hole in fields.objects("holes")],
    )


def _hole(fields: Fields, since_ns: int | None) -> Hole:
    span = Span(fields.integer("first", least=1), fields.integer("last", least=1))
    since = fields.integer("since_ns") if since_ns is None else since_ns
    return Hole(span, since, fields.choice("cause", Cause), fields.boolean("named"))
