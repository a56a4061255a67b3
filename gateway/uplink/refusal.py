"""Why a connection could not be had, in the words of `wardlink status`. No I/O lives here."""

import socket
import ssl

from gateway.config.broker import Broker
from gateway.uplink.dial import NO_WAY
from gateway.uplink.wire import Reason, UplinkError

STEP_LIMIT_S = 10.0
"""For each step from TLS on."""


def connect_error(broker: Broker, failure: Exception | None) -> UplinkError:
    """What kept a connection from coming about; None where the broker closed it without a word."""
    where = f"{broker.host}:{broker.port}"
    match failure:
        case ssl.SSLCertVerificationError():
            # verify_message of a host name mismatch repeats the name; of the others it is OpenSSL's own sentence.
            return UplinkError(Reason.TLS, f"{where}: its certificate: {failure.verify_message}")
        case ssl.SSLError():
            return UplinkError(Reason.TLS, f"{where}: {failure.reason or failure}")
        case socket.gaierror():
            return UplinkError(Reason.DNS, f"{where}: {failure.strerror}")
        case TimeoutError():
            return UplinkError(Reason.TIMEOUT, f"{where}: no answer within {STEP_LIMIT_S:g} s")
        case OSError() if failure.errno in NO_WAY:
            return UplinkError(Reason.UNREACHABLE, f"{where}: {failure.strerror}")
        case OSError():
            return UplinkError(Reason.REFUSED, f"{where}: {failure.strerror or failure}")
        case None:
            return UplinkError(
                Reason.PROTOCOL,
                f"{where}: closed before CONNACK; got no answer of MQTT {broker.protocol},"
                " expected one; does the broker speak it? see broker.protocol",
            )
        case _:
            return UplinkError(Reason.PROTOCOL, f"{where}: {type(failure).__name__}: {failure}")
