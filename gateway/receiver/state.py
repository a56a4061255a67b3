"""How the ledger is written down, in a state file and in databases alike."""

from collections.abc import Iterable

from gateway.journal.entry import Stream
from gateway.receiver.chain import Chain
from gateway.receiver.ledger import Cause, Hole, Key, Ledger, Span, Track
from gateway.uplink.fields import Fields, Hex, Json, PayloadError, dumps, loads
from gateway.uplink.notice import HubStatus
from gateway.uplink.payload import FrameTags
from gateway.uplink.spans import Spans


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
        "pending": [{"first": first, "last": last} for first, last in track.pending],
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
        "tags": [{"behind": at, "tag": Hex(tag)} for at, tag in track.chain.tags.items()],
    }


def read_track(fields: Fields, since_ns: int | None = None) -> Track:
    """What `track_fields` made; with `since_ns` every hole that is missing dates from then. Raises PayloadError."""
    pending = fields.objects("pending") if fields.has("pending") else []
    # One that was written before there were any: then nothing is known, and nothing is said.
    tags = fields.objects("tags") if fields.has("tags") else []
    return Track(
        fields.integer("floor", least=0),
        fields.integer("high", least=0),
        fields.integer("claimed", least=0),
        [_hole(hole, since_ns) for hole in fields.objects("holes")],
        Spans((item.integer("first", least=1), item.integer("last", least=1)) for item in pending),
        Chain({item.integer("behind", least=0): item.hex("tag") for item in tags}),
    )


def _hole(fields: Fields, since_ns: int | None) -> Hole:
    span = Span(fields.integer("first", least=1), fields.integer("last", least=1))
    since = fields.integer_or_none("since_ns")
    if since is not None and since_ns is not None:
        since = since_ns
    return Hole(span, since, fields.choice("cause", Cause), fields.boolean("named"))


def frame_fields(span: Span, tags: FrameTags) -> dict[str, Json]:
    """A frame whose entries came."""
    ends: dict[str, Json] = {"previous_tag": Hex(tags.previous), "tag": Hex(tags.own)}
    return {"first": span.first, "last": span.last} | ends


def read_frame(fields: Fields) -> tuple[Span, FrameTags]:
    """What `frame_fields` made. Raises PayloadError."""
    span = Span(fields.integer("first", least=1), fields.integer("last", least=1))
    return span, FrameTags(fields.hex("previous_tag"), fields.hex("tag"))


# --- For a store of one's own ------------------------------------------------------------------------------


def documents(changed: Ledger) -> dict[str, str]:
    """A ledger, or what changed of one, as texts by name: each takes the place of the one of that name."""
    made: dict[str, str] = {}
    for key, track in changed.tracks.items():
        name = f"track/{key.hub}/{key.stream}/{key.epoch}"
        made[name] = dumps({"is": "track"} | key_fields(key) | track_fields(track))
    for hub, (boot_id, boottime_ns) in changed.beats.items():
        made[f"beat/{hub}"] = dumps(
            {"is": "beat", "hub": hub, "boot_id": boot_id, "boottime_ns": boottime_ns}
        )
    for hub, status in changed.statuses.items():
        made[f"status/{hub}"] = dumps(
            {"is": "status", "hub": hub, "said": status.encode().decode("ascii")}
        )
    return made


def read_documents(texts: Iterable[str], now_ns: int) -> Ledger:
    """The ledger of all documents, in any order. The grace of every hole begins anew. Raises PayloadError."""
    ledger = Ledger()
    for text in texts:
        fields = loads(text.encode())
        match fields.text("is"):
            case "track":
                ledger.tracks[read_key(fields)] = read_track(fields, now_ns)
            case "beat":
                beat = fields.text("boot_id"), fields.integer("boottime_ns")
                ledger.beats[fields.text("hub")] = beat
            case "status":
                said = fields.text("said").encode()
                ledger.statuses[fields.text("hub")] = HubStatus.decode(said)
            case other:
                raise PayloadError("document.is", repr(other[:48]), "track, beat or status")
    return ledger
