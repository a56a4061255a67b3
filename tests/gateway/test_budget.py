"""The budget in days against what the journal really takes, and against any configuration."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import assigned, registry
from drivers.contract import Resume
from drivers.model import Mode, Record
from firmware_sim.heart_rate_strap import encode_measurement
from firmware_sim.openview_board import LAYOUTS, encoded, put_vitals, quantised
from firmware_sim.patient import Patient, Plan
from gateway import budget, cli
from gateway.acquire import Acquire
from gateway.conditioner import Conditioner
from gateway.config.broker import Broker
from gateway.config.delivery import Delivery, Payload
from gateway.config.device import Device
from gateway.config.hub import Hub
from gateway.config.journal import Journal as Promise
from gateway.config.load import Config
from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.segment import (
    BLOCK_BYTES,
    FRAME_HEADER_BYTES,
    FrameHeader,
    parse_frame,
)
from gateway.journal.state import JournalStatus, StreamStatus
from gateway.tables import ConfigError
from tests.gateway.journal.builders import FixedClock

DRIVERS = registry.all_drivers()
NS_PER_S = 1_000_000_000
SECONDS = 90
GB = 1_000_000_000


def device(name: str, number: int = 0) -> Device:
    driver = DRIVERS[name]
    options = {option.name: option.default for option in driver.options}
    if "rate_hz" in options and name in {"afe4490", "max86150"}:
        options["rate_hz"] = driver.options[0].parse(LAYOUTS[name].rate_hz)
    return Device(f"device-{number}", driver, options=options, subject="patient-1")


def config(devices: Iterable[Device], promise: Promise | None = None) -> Config:
    hub = Hub("hub-1", "home", Path("/state"), Path("/run"), Mode.DEMO)
    broker = Broker("localhost", 1883)
    return Config(hub, broker, Delivery(), promise or Promise(), tuple(devices))


class Packet(NamedTuple):
    at_ns: int
    source: str
    data: bytes


def strap() -> Iterator[Packet]:
    for second in range(SECONDS):
        ticks = (683,) if second % 2 else (683, 683)  # 90 a minute
        data = encode_measurement(90, ticks, contact=True)
        yield Packet(second * NS_PER_S, assigned.HEART_RATE_MEASUREMENT, data)


def board(name: str) -> Iterator[Packet]:
    layout = LAYOUTS[name]
    patient = Patient(Plan(heart_rate=85.0).quiet(), layout.rate_hz)
    rate = round(layout.rate_hz)
    for second in range(SECONDS):
        payload = quantised(layout, patient.samples(second * rate, rate))
        put_vitals(layout, payload, patient.vitals(float(second)))
        for n, frame in enumerate(np.split(payload, rate)):
            at_ns = second * NS_PER_S + (n + 1) * NS_PER_S // rate
            yield Packet(at_ns, "", encoded(layout, frame))


PACKETS: dict[str, Callable[[], Iterator[Packet]]] = {
    "heart-rate": strap,
    **{name: partial(board, name) for name in LAYOUTS},
}


def stored(
    path: Path, device: Device, packets: Iterable[Packet]
) -> dict[Stream, list[FrameHeader]]:
    """The frames that the hub's own parts write for a device, at one commit a second."""
    journal = Journal.open(
        path, hub="hub-1", clock=FixedClock(), hub_key=HubKey.generate(), max_bytes=64 << 20
    )
    conditioner, session = Conditioner(), device.driver.session(device.options)
    list(session.start(0, Resume()))
    committed = 0
    for packet in packets:
        for output in session.receive(packet.source, packet.data, packet.at_ns):
            assert isinstance(output, Record)
            for record in conditioner.process(device.id, output):
                quality = getattr(record, "quality", None)
                stamped = (
                    replace(record, quality=replace(quality, mode=Mode.DEMO)) if quality else record
                )
                journal.append(device.id, stamped, device.subject)
        if packet.at_ns // NS_PER_S > committed:
            committed += 1
            journal.commit()
    journal.close()
    found: dict[Stream, list[FrameHeader]] = {}
    for stream in budget.PROMISED:
        found[stream] = []
        for file in sorted((path / stream).iterdir()):
            data = file.read_bytes()
            for at in range(BLOCK_BYTES, len(data), BLOCK_BYTES):
                frame = parse_frame(data[at : at + FRAME_HEADER_BYTES])
                if frame:
                    found[stream].append(frame)
    return found


def test_every_driver_is_measured() -> None:
    assert set(PACKETS) | {"blood-pressure"} >= set(DRIVERS)


@pytest.mark.parametrize("name", PACKETS)
def test_what_a_row_says_is_what_the_journal_takes(name: str, tmp_path: Path) -> None:
    row = device(name)
    frames = stored(tmp_path / "journal", row, PACKETS[name]())
    rates = budget.rates(config([row]))
    for stream in budget.PROMISED:
        plain = sum(frame.length for frame in frames[stream]) / SECONDS
        disk = sum(frame.size for frame in frames[stream]) / SECONDS
        assert plain == pytest.approx(rates[stream].bytes_s, rel=0.2, abs=1)
        assert disk == pytest.approx(rates[stream].disk_bytes_s, rel=0.2, abs=1)


def test_blocks_and_long_batches() -> None:
    assert budget.Rate(1, 200).disk_bytes_s == pytest.approx(4096 * 256 / 254)
    # 70 KiB a second are a full frame of 17 blocks and one of 2; a segment has 254, so some stay empty.
    assert budget.Rate(1, 71_680).disk_bytes_s == pytest.approx(19 * 4096 * 256 / (254 - 8))
    # What comes once in ten seconds is committed once in ten seconds.
    assert budget.Rate(0.1, 20).disk_bytes_s == pytest.approx(409.6 * 256 / 254)
    assert budget.Rate().disk_bytes_s == 0


def test_what_cannot_fit_is_refused_with_what_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wardlink.toml"
    file.write_text(
        '[hub]\nid = "h"\nstate_dir = "state"\n[broker]\nhost = "localhost"\n'
        "[journal]\nvitals_days = 30\nwaveform_hours = 24\n"
        '[[device]]\nid = "b"\ndriver = "healthypi-v3"\nport = "tty"\n',
        encoding="utf-8",
    )
    for command in ("check-config", "run"):
        assert cli.main([command, "--config", str(file)]) == cli.USAGE
        text = capsys.readouterr().err
        assert (
            "journal: got 30 days of vitals and 24 h of waveform = 11.1 GB, expected at most 1.0 GB"
            in text
        )
        assert "2 days of vitals and 19 h of waveform would fit, or max_bytes = 11" in text
    assert not (tmp_path / "state").exists()
    good = file.read_text(encoding="utf-8").replace("= 30", "= 2").replace("= 24", "= 19")
    file.write_text(good, encoding="utf-8")
    assert cli.main(["check-config", "--config", str(file)]) == cli.OK


@given(
    names=st.lists(st.sampled_from(sorted(PACKETS)), max_size=12),
    days=st.integers(0, 400),
    hours=st.integers(0, 2000),
    max_bytes=st.integers(32 << 20, 1 << 38),
)
@settings(max_examples=150, deadline=None)
def test_what_is_said_to_fit_fits(names: list[str], days: int, hours: int, max_bytes: int) -> None:
    made = config(
        [device(name, n) for n, name in enumerate(names)], Promise(max_bytes, days, hours)
    )
    try:
        budget.check(made)
    except ConfigError as error:
        (fault,) = error.faults
        words = fault.expected.rpartition(": ")[2].split()
        fitting, enough = replace(made.journal), int(words[-1])
        fitting = replace(fitting, vitals_days=int(words[0]), waveform_hours=int(words[5]))
        budget.check(replace(made, journal=fitting))
        budget.check(replace(made, journal=replace(made.journal, max_bytes=enough)))
    else:
        quota = budget.quota_bytes(made)
        assert sum(quota.values()) <= budget.usable_bytes(max_bytes)
        for stream, seconds in budget.promised_s(made).items():
            needed = budget.rates(made)[stream].disk_bytes_s * seconds
            assert quota[stream] >= needed


def disk_usage(free: int) -> object:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    return lambda _path: Usage(0, 0, free)


def test_a_disk_without_the_room_stops_a_first_start_and_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub("hub-1", "home", tmp_path / "state", tmp_path / "run")
    made = replace(config([device("heart-rate")]), hub=hub)
    monkeypatch.setattr("shutil.disk_usage", disk_usage(300_000_000))
    with pytest.raises(
        JournalError, match=r"disk: got 0\.3 GB free beside 0\.0 MB of journal, expected 0\.4 GB"
    ):
        Acquire(made)
    monkeypatch.setattr("shutil.disk_usage", disk_usage(GB))
    assert budget.disk_shortage(made, tmp_path / "state" / "journal") == ""
    Acquire(made)._journal.close()
    held = tmp_path / "state" / "journal" / "vitals"
    (held / "x").write_bytes(bytes(100_000_000))
    monkeypatch.setattr("shutil.disk_usage", disk_usage(280_000_000))
    assert budget.disk_shortage(made, held.parent) == ""
    monkeypatch.setattr("shutil.disk_usage", disk_usage(10))
    (held / "x").unlink()
    app = Acquire(made)  # the journal is there already: it starts, and says so
    assert app.snapshot()["budget"]
    app._journal.close()


def status(**held: int) -> JournalStatus:
    streams = tuple(StreamStatus(stream, 0, 0, held.get(stream, 0), 0, None) for stream in Stream)
    return JournalStatus("e", "a", "k", "hub", 0, GB, 0, streams)


def test_time_left_is_room_over_rate() -> None:
    made = config([device("healthypi-v3")], Promise(GB, 1, 6))
    quota, usable = budget.quota_bytes(made), budget.usable_bytes(GB)
    rate = 4096 * 256 / 254
    vitals, waveform = budget.left(made, status())
    assert vitals.left_s == pytest.approx((usable - quota[Stream.WAVEFORM]) / rate)
    assert waveform.left_s == pytest.approx((usable - quota[Stream.VITALS]) / rate)
    assert (vitals.promised_s, waveform.promised_s) == (86_400, 21_600)
    # Beyond its promise waveform gives way; vitals above theirs take from what waveform has.
    vitals, waveform = budget.left(made, status(vitals=600_000_000, waveform=200_000_000))
    assert vitals.left_s == pytest.approx((usable - quota[Stream.WAVEFORM] - 600_000_000) / rate)
    assert waveform.left_s == pytest.approx((usable - 600_000_000 - 200_000_000) / rate)
    # Alarms above their reserve take from both.
    vitals, _ = budget.left(made, status(alarm=500_000_000))
    assert vitals.left_s == pytest.approx((GB - 500_000_000 - quota[Stream.WAVEFORM]) / rate)
    _, waveform = budget.left(made, status(waveform=GB))
    assert waveform.left_s == 0


def test_a_measured_rate_counts_and_no_device_means_no_end() -> None:
    made = config([device("heart-rate")])
    streams = [
        replace(s, bytes_s=100.0) if s.stream is Stream.VITALS else s for s in status().streams
    ]
    vitals, waveform = budget.left(made, replace(status(), streams=tuple(streams)))
    assert (vitals.bytes_s, vitals.measured) == (100.0, True)
    assert waveform.left_s is None
    assert asdict(waveform)["stream"] == "waveform"


def test_in_blocks_a_quiet_signal_promises_nothing() -> None:
    """Its leads off, a board takes a quarter of what it takes with them on."""
    made = replace(
        config([device("healthypi-v3")]),
        delivery=Delivery(payloads={Stream.WAVEFORM: Payload.CBOR}),
    )
    raw = budget.rates(made)[Stream.WAVEFORM].disk_bytes_s
    for delivery, bytes_s, expected in (
        (made.delivery, raw / 4, (raw, False)),
        (made.delivery, raw * 2, (raw * 2, True)),
        (Delivery(), raw / 4, (raw / 4, True)),
    ):
        streams = tuple(replace(s, bytes_s=bytes_s) for s in status().streams)
        left = budget.left(replace(made, delivery=delivery), replace(status(), streams=streams))
        vitals, waveform = left
        assert (waveform.bytes_s, waveform.measured) == expected
        assert (vitals.bytes_s, vitals.measured) == (bytes_s, True)
