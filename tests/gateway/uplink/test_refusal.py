"""A certificate that is refused for its time says what the clock has to do with it."""

import ssl

import pytest

from gateway.clock import BUILT_NS, ClockReading, ClockState
from gateway.config.broker import Broker
from gateway.uplink.refusal import connect_error
from gateway.uplink.wire import Reason

BROKER = Broker("broker.example", 8883)
NOT_YET_VALID, EXPIRED, SELF_SIGNED = 9, 10, 18


class ShownClock:
    boot_id = "boot-1"

    def __init__(self, state: ClockState, wall_ns: int) -> None:
        self._reading = ClockReading(5, wall_ns, state)

    def boottime_ns(self) -> int:
        return 5

    def read(self) -> ClockReading:
        return self._reading


def refused(code: int, state: ClockState, wall_ns: int = BUILT_NS) -> str:
    failure = ssl.SSLCertVerificationError(1, "failed")
    failure.verify_code, failure.verify_message = code, "certificate is so"
    error = connect_error(BROKER, failure, ShownClock(state, wall_ns))
    assert error.reason is Reason.TLS
    assert "broker.example:8883: its certificate: certificate is so" in error.text
    return error.text


@pytest.mark.parametrize("code", [NOT_YET_VALID, EXPIRED])
def test_an_unset_clock_is_named_as_the_likely_reason(code: int) -> None:
    text = refused(code, ClockState.UNSET, 123_000_000_000)
    assert "the clock here is unset and says 1970-01-01T00:02:03" in text
    assert "time server" in text
    assert "the clock here is restored and says 2026-01-01" in refused(code, ClockState.RESTORED)


def test_a_good_clock_is_not_to_blame() -> None:
    assert refused(NOT_YET_VALID, ClockState.SYNCHRONISED).endswith("certificate is so")
    assert refused(SELF_SIGNED, ClockState.UNSET).endswith("certificate is so")
