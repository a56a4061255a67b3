"""Encoders against vectors; whole boards over real ptys, the hub's transport and drivers against the ledger."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drivers.assigned import Code
from drivers.contract import Malformed, Output, Resume, SerialLink, Session
from drivers.model import Event, EventKind, Observation, Quantity, SampleArray
from drivers.registry import all_drivers
from firmware_sim.faults import Batch, Disconnect, Faults, Insert, Loss, OneByOne
from firmware_sim.line import PtyLine
from firmware_sim.openview_board import (
    BANNER,
    LAYOUTS,
    NS_PER_S,
    OpenViewBoard,
    boottime_ns,
    encoded,
    put_vitals,
    quantised,
)
from firmware_sim.patient import Desaturation, Patient, Plan, Vitals
from firmware_sim.recordings import Recording
from gateway.clock import SystemClock
from gateway.transport.base import Reason, TransportError
from gateway.transport.serial import SerialTransport

# Constructed from the firmware sources (order and width of the fields), not captured.
VECTORS = [
    (
        "healthypi-v3",
        (-120, 35, 4194304, 2097152, 3650, 16, 98, 72, 80, 0, 0),
        "0afa14000288ff23000000400000002000420e106248500000000b",
    ),
    ("ads1292r", (-120, 35, 16, 72, 0), "0afa09000288ff23001000480000000b"),
    ("afe4490", (230000, 210000, 98, 72), "0afa0a000270820300503403006248000b"),
    ("max86150", (-250, 51234, 48000), "0afa06000206ff22c880bb000b"),
]
FIELDS = {
    Code.ECG_ELEC_POTL: "ecg",
    Code.IMPED_TTHOR: "resp",
    Code.WARDLINK_PPG_INFRARED: "infrared",
    Code.WARDLINK_PPG_RED: "red",
}


@pytest.mark.parametrize(("name", "payload", "expected"), VECTORS)
def test_encoders_give_the_vectors(name: str, payload: tuple[int, ...], expected: str) -> None:
    layout = LAYOUTS[name]
    assert encoded(layout, np.array([payload], layout.payload)).hex() == expected


def test_v4_has_the_layout_of_v3_with_its_own_constants() -> None:
    layout = LAYOUTS["healthypi-v4"]
    payload = quantised(layout, {"ecg": np.zeros(1)})
    put_vitals(layout, payload, Vitals(72.4, 15.6, 98.0, 36.5))
    frame = encoded(layout, payload)
    assert frame.hex() == "0afa140002" + "00" * 12 + "420e106248507800000b"


@pytest.mark.parametrize(
    ("name", "spo2", "status", "ecg"), [("healthypi-v3", 25, 3, 81), ("healthypi-v4", 0, 3, 0)]
)
def test_missing_values_are_those_of_each_firmware(
    name: str, spo2: int, status: int, ecg: int
) -> None:
    layout = LAYOUTS[name]
    payload = quantised(layout, {"ecg": np.ones(2), "resp": np.ones(2)})
    put_vitals(layout, payload, Vitals(leads_on=False, finger_on=False))
    assert (payload["spo2"] == spo2).all()
    assert (payload["status"] == status).all()
    assert (payload["ecg"] == ecg).all()
    for field_name in ("temp", "resp_rate", "heart_rate"):
        assert not payload[field_name].any()


def test_converter_rounds_clips_and_shifts_as_the_firmware_does() -> None:
    layout = LAYOUTS["healthypi-v3"]
    payload = quantised(
        layout, {"ecg": np.array([1e9, -1e9, 0.0124]), "infrared": np.array([0.5, 2.0, -2.0])}
    )
    assert payload["ecg"].tolist() == [32767, -32768, 1]
    assert payload["infrared"].tolist() == [2**20 << 10, (2**21 - 1) << 10, -(2**21) << 10]
    assert not payload["red"].any()


# --- a board and its clock --------------------------------------------------------------------------


def board_at(path: Path, name: str, **options: Any) -> OpenViewBoard:
    layout = LAYOUTS[name]
    plan = options.pop("plan", Plan(seed=3, desaturations=(Desaturation(10, 20, 8),)))
    return OpenViewBoard(layout, Patient(plan, layout.rate_hz), PtyLine(path), **options)


def test_samples_fall_on_a_grid_that_late_calls_do_not_move(tmp_path: Path) -> None:
    board = board_at(tmp_path / "tty", "healthypi-v3")
    board.start(1_000)
    total = 0
    for now_ns in (1_000, 8_001_000, 8_000_999 + 8_000_001, 5 * NS_PER_S, 300 * NS_PER_S):
        total += len(board.produce(now_ns)) // 27
        assert total == board.ledger.produced == (now_ns - 1_000) // 8_000_000 + 1
    assert board.ledger.time_ns(np.array([0, 125 * 3600])).tolist() == [
        1_000,
        3600 * NS_PER_S + 1_000,
    ]
    board.line.close()


def test_bursts_of_any_size_carry_the_same_bytes(tmp_path: Path) -> None:
    boards = [board_at(tmp_path / f"tty{n}", "healthypi-v4") for n in range(2)]
    for board in boards:
        board.start(0)
    whole = boards[0].produce(12 * NS_PER_S).units.tobytes()
    pieces = [boards[1].produce(n * NS_PER_S // 61).units.tobytes() for n in range(12 * 61 + 1)]
    assert b"".join(pieces) == whole
    for board in boards:
        board.line.close()


def test_crystal_error_and_speed_change_the_rate(tmp_path: Path) -> None:
    for options, expected in (({"crystal_ppm": 30_000}, 1288), ({"speed": 4.0}, 5001)):
        board = board_at(tmp_path / "tty", "healthypi-v3", **options)
        board.start(0)
        board.produce(10 * NS_PER_S)
        assert board.ledger.produced == expected
        board.line.close()


def test_everything_is_lost_while_nobody_has_the_port_open(tmp_path: Path) -> None:
    board = board_at(tmp_path / "tty", "healthypi-v3")
    board.start(0)
    board.send(board.produce(NS_PER_S))
    assert board.ledger.produced == 126
    assert board.ledger.delivered_count == 0
    assert board.line.counts.lost_closed == 126 * 27 + len(BANNER)
    board.line.close()


def test_board_stops_at_the_end_of_a_recording(tmp_path: Path) -> None:
    source = Recording({"ecg": np.zeros(300)}, 125, 125)
    board = OpenViewBoard(LAYOUTS["ads1292r"], source, PtyLine(tmp_path / "tty"))
    board.start(0)
    board.produce(2 * NS_PER_S)
    assert board.finished is False
    board.produce(60 * NS_PER_S)
    assert bool(board.finished)
    assert board.ledger.produced == 300
    assert len(board.produce(61 * NS_PER_S)) == 0
    board.line.close()


def test_pulled_plug_takes_the_port_away_and_the_board_boots_again(tmp_path: Path) -> None:
    unplugs = Disconnect(every_s=1.0, for_s=0.5)
    board = board_at(tmp_path / "tty", "ads1292r", faults=Faults(2, unplugs))
    board.start(0)
    seen = []
    for n in range(1, 501):
        board.send(board.produce(n * NS_PER_S // 50))
        assert board.line.plugged is board.line.path.is_symlink() is not board.faults.pulled
        seen.append(board.line.plugged)
    boots = 1 + np.count_nonzero(np.diff(np.array(seen, int)) == 1)
    assert unplugs.struck >= 3
    lost = board.line.counts.lost_closed + board.line.counts.lost_unplugged
    assert lost == board.ledger.produced * 16 + boots * len(BANNER)
    board.line.close()


# --- the whole way: board, pty, transport, driver ---------------------------------------------------


@dataclass
class Decoded:
    """What came out of a driver's session, sorted."""

    blocks: dict[Code, list[NDArray[np.int64]]] = field(default_factory=dict)
    vitals: list[tuple[Code, Quantity]] = field(default_factory=list)
    gaps: list[Event] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)

    def take(self, outputs: "list[Output]") -> None:
        for output in outputs:
            match output:
                case Observation(code=code, value=SampleArray() as value):
                    samples = np.array(value.samples(), np.int64)
                    self.blocks.setdefault(code, []).append(samples)
                case Observation(code=code, value=Quantity() as value):
                    self.vitals.append((code, value))
                case Event(kind=EventKind.GAP):
                    self.gaps.append(output)
                case Malformed():
                    self.malformed.append(output)
                case _:
                    pytest.fail(f"unexpected {output}")

    def channel(self, code: Code) -> NDArray[np.int64]:
        return np.concatenate(self.blocks[code])


def new_session(name: str, rate_hz: float) -> tuple[SerialLink, Session]:
    driver = all_drivers()[name]
    given: Mapping[str, object] = {"rate_hz": rate_hz}
    options = {o.name: o.parse(given[o.name]) for o in driver.options if o.name in given}
    assert isinstance(driver.link, SerialLink)
    return driver.link, driver.session(options)


async def pump(
    transport: SerialTransport,
    session: Session,
    into: Decoded,
    quiet_s: float,
    over: Callable[[], bool] = lambda: True,
) -> None:
    """Until it is over and nothing comes for `quiet_s`, or the link is lost."""
    into.take(list(session.start(boottime_ns(), Resume())))
    while True:
        try:
            arrival = await asyncio.wait_for(transport.receive(), quiet_s)
        except TimeoutError:
            if over():
                break
            continue
        into.take(list(session.receive(arrival.source, arrival.data, arrival.at_ns)))
    into.take(list(session.timeout(boottime_ns())))


async def streamed(
    board: OpenViewBoard, seconds: float, enough: Callable[[], bool] = lambda: True
) -> Decoded:
    """Opens the port, lets the board run for `seconds` of this clock and until it is enough, and decodes all."""
    line, session = new_session(board.layout.name, board.source.rate_hz)
    transport = SerialTransport(board.line.path, line, SystemClock())
    await transport.open()
    running, loop = asyncio.create_task(board.run()), asyncio.get_running_loop()

    def stop() -> None:
        if enough():
            running.cancel()
        else:
            loop.call_later(0.05, stop)

    loop.call_later(seconds, stop)
    decoded = Decoded()
    await pump(transport, session, decoded, quiet_s=0.15, over=running.done)
    await transport.close()
    board.line.close()
    return decoded


def assert_equals_ledger(decoded: Decoded, board: OpenViewBoard) -> None:
    expected = board.ledger.values(board.ledger.delivered())
    for code, name in FIELDS.items():
        assert (code in decoded.blocks) == (name in board.layout.waves)
        if name in board.layout.waves:
            assert np.array_equal(decoded.channel(code), expected[name].astype(np.int64))


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_driver_decodes_exactly_what_the_board_produced(name: str, tmp_path: Path) -> None:
    board = board_at(tmp_path / "ttyWARD0", name, speed=30.0)
    decoded = asyncio.run(streamed(board, 0.5))
    assert board.ledger.produced > 500
    assert board.ledger.delivered().tolist() == list(range(board.ledger.produced))
    assert_equals_ledger(decoded, board)
    assert decoded.gaps == []
    assert b"".join(junk.data for junk in decoded.malformed) == BANNER[:64]
    if name == "healthypi-v3":
        shown = [
            int(str(value.value)) for code, value in decoded.vitals if code is Code.PULS_OXIM_SAT_O2
        ]
        assert min(shown) < 95 <= max(shown)


def test_real_time_runs_at_the_rate_of_the_board(tmp_path: Path) -> None:
    board = board_at(tmp_path / "ttyWARD0", "ads1292r")
    decoded = asyncio.run(streamed(board, 1.0))
    assert_equals_ledger(decoded, board)
    assert board.ledger.produced == pytest.approx(125, abs=8)


@pytest.mark.parametrize("seed", range(3))
def test_each_loss_on_the_wire_is_a_gap_and_no_block_spans_it(seed: int, tmp_path: Path) -> None:
    # Runs of at most 6 bytes: no false frame can close, since no 00 0B stands where it would have to end.
    faults = Faults(seed, Loss(1 / 1500, longest=6))
    board = board_at(tmp_path / "ttyWARD0", "healthypi-v3", speed=30.0, faults=faults)
    decoded = asyncio.run(streamed(board, 0.4, lambda: faults.counts()["loss"] > 30))
    assert_equals_ledger(decoded, board)
    delivered = board.ledger.delivered()
    breaks = np.count_nonzero(np.diff(delivered) != 1)
    gaps = [gap for gap in decoded.gaps if gap.reason == "resync"]
    assert breaks > 10
    assert len(gaps) == breaks, str(faults)
    at = 0
    for block in decoded.blocks[Code.ECG_ELEC_POTL]:
        numbers = delivered[at : at + len(block)]
        assert (np.diff(numbers) == 1).all(), str(faults)
        at += len(block)


@pytest.mark.parametrize("seed", range(2))
def test_byte_by_byte_with_loss_and_strangers_decodes_what_went_out_whole(
    seed: int, tmp_path: Path
) -> None:
    faults = Faults(seed, Loss(1 / 1500, longest=6), Insert(1 / 1500, longest=6), OneByOne())
    board = board_at(tmp_path / "ttyWARD0", "healthypi-v4", speed=5.0, faults=faults)
    decoded = asyncio.run(streamed(board, 0.5, lambda: faults.counts()["onebyone"] > 5_000))
    assert_equals_ledger(decoded, board)
    breaks = np.count_nonzero(np.diff(board.ledger.delivered()) != 1)
    assert len(decoded.gaps) >= breaks > 0, str(faults)


def test_unplug_is_lost_and_after_replug_the_stream_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        board = board_at(tmp_path / "ttyWARD0", "healthypi-v3", speed=10.0)
        link, session = new_session("healthypi-v3", 125.0)
        transport = SerialTransport(board.line.path, link, SystemClock())
        await transport.open()
        running = asyncio.create_task(board.run())
        loop = asyncio.get_running_loop()
        loop.call_later(0.3, board.unplug)
        before, after = Decoded(), Decoded()
        with pytest.raises(TransportError) as lost:
            await pump(transport, session, before, quiet_s=5)
        assert lost.value.reason is Reason.LOST
        await transport.close()
        with pytest.raises(TransportError) as missing:
            await transport.open()
        assert missing.value.reason is Reason.NOT_FOUND
        await asyncio.sleep(0.1)
        gone = board.ledger.delivered_count
        assert board.ledger.produced > gone > 100
        board.replug()
        await transport.open()
        loop.call_later(0.3, running.cancel)
        _, session = new_session("healthypi-v3", 125.0)
        await pump(transport, session, after, quiet_s=0.15)
        await transport.close()
        board.line.close()
        numbers = board.ledger.delivered()
        assert np.count_nonzero(np.diff(numbers) != 1) == 1
        ecg = board.ledger.values(numbers)["ecg"].astype(np.int64)
        early, late = (decoded.channel(Code.ECG_ELEC_POTL) for decoded in (before, after))
        # The session that was cut off had at most one unfinished block; opening may flush a burst.
        assert np.array_equal(early, ecg[: len(early)])
        assert gone - len(early) < 25
        assert np.array_equal(late, ecg[len(ecg) - len(late) :])
        assert len(ecg) - gone - len(late) < 30

    asyncio.run(main())


def test_what_the_line_cannot_take_is_lost_and_named_by_the_ledger(tmp_path: Path) -> None:
    async def main() -> None:
        board = board_at(tmp_path / "ttyWARD0", "healthypi-v3")
        link, session = new_session("healthypi-v3", 125.0)
        transport = SerialTransport(board.line.path, link, SystemClock())
        await transport.open()
        board.start(0)
        board.send(board.produce(30 * NS_PER_S))  # 100 KB at once, where a pty holds some 20
        assert board.line.counts.lost_full > 50_000
        decoded = Decoded()
        await pump(transport, session, decoded, quiet_s=0.2)
        await transport.close()
        board.line.close()
        assert_equals_ledger(decoded, board)
        lost = board.ledger.lost()
        assert len(lost) + board.ledger.delivered_count == board.ledger.produced == 3751
        assert np.array_equal(lost, np.arange(board.ledger.delivered_count, 3751))

    asyncio.run(main())


def test_faults_strike_boards_alike_under_one_seed(tmp_path: Path) -> None:
    outs = []
    for n in range(2):
        faults = Faults(11, Loss(0.001, 3), Insert(0.001, 3))
        board = board_at(tmp_path / f"tty{n}", "afe4490", faults=faults)
        board.start(0)
        out = Batch.of_bytes(b"", 0)
        for turn in range(1, 21):
            out = out.then(board.produce(turn * (n + 1) * NS_PER_S // (n + 1)))
        outs.append(out.units.tobytes())
        board.line.close()
    assert outs[0] == outs[1]
