"""Why a connection could not be had, in the words of `wardlink status`. No I/O lives here but a look at the clock."""

import os
import socket
import ssl

from gateway.clock import Clock, ClockState, SystemClock
from gateway.config.broker import Broker
from gateway.uplink.dial import NO_WAY
from gateway.uplink.times import iso_time
from gateway.uplink.wire import Reason, UplinkError

OF_TIME = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED (openssl/x509_vfy.h)."""
STEP_LIMIT_S = 10.0
"""For each step from TLS on."""


def connect_error(
    broker: Broker, failure: Exception | None, clock: Clock | None = None
) -> UplinkError:
    """What kept a connection from coming about; None where the broker closed it without a word.

    Args:
        clock: the one that TLS went by; None for the machine's.
    """
    where = f"{broker.host}:{broker.port}"
    match failure:
        case ssl.SSLCertVerificationError():
            # verify_message of a host name mismatch repeats the name; of the others it is OpenSSL's own sentence.
            text = f"{where}: its certificate: {failure.verify_message}"
            return UplinkError(
                Reason.TLS, text + _clock_doubt(failure.verify_code, clock or SystemClock())
            )
        case ssl.SSLError():
            return UplinkError(Reason.TLS, f"{where}: {failure.reason or failure}")
        case socket.gaierror():
            return UplinkError(Reason.DNS, f"{where}: {failure.strerror}")
        case TimeoutError():
            return UplinkError(Reason.TIMEOUT, f"{where}: no answer within {STEP_LIMIT_S:g} s")
        case OSError() if failure.errno in NO_WAY:
            return UplinkError(Reason.UNREACHABLE, f"{where}: {failure.strerror}")
        case OSError():
            # asyncio puts a sentence of its own in the place of the system's.
            text = os.strerror(failure.errno) if failure.errno else str(failure)
            return UplinkError(Reason.REFUSED, f"{where}: {text}")
        case None:
            return UplinkError(
                Reason.PROTOCOL,
                f"{where}: closed before CONNACK; got no answer of MQTT {broker.protocol},"
                " expected one; does the broker speak it? see broker.protocol",
            )
        case _:
            return UplinkError(Reason.PROTOCOL, f"{where}: {type(failure).__name__}: {failure}")


def _clock_doubt(verify_code: int, clock: Clock) -> str:
    """What to do where the clock is the likelier culprit than the certificate; checking is never switched off."""
    reading = clock.read()
    if verify_code not in OF_TIME or reading.state is ClockState.SYNCHRONISED:
        return ""
    return (
        f"; the clock here is {reading.state} and says {iso_time(reading.wall_ns)}, which is the likely reason:"
        " let it reach a time server (timedatectl timesync-status); it is tried again all the time"
    )
