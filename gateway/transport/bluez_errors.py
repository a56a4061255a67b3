"""What bleak, BlueZ and D-Bus say when something fails, as a table: reason for the supervisor, advice for people."""

from dataclasses import dataclass

from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakCharacteristicNotFoundError,
    BleakDBusError,
    BleakDeviceNotFoundError,
    BleakError,
    BleakGATTProtocolError,
    BleakGATTProtocolErrorCode,
)
from dbus_fast import DBusFastError

from gateway.transport.base import Reason, TransportError

STACK_ERRORS = (BleakError, DBusFastError, EOFError, OSError)
"""All that a call of bleak or dbus-fast may raise for reasons outside the hub. TimeoutError is an OSError."""


@dataclass(frozen=True, slots=True)
class _Row:
    """The first row whose two parts both occur decides."""

    name: str
    text: str
    reason: Reason
    advice: str


_RETRY = "interference or a device that went to sleep; the next attempt usually works"
_PAIR = "the device wants to be paired, or has forgotten the bond: pair it again"
_SERVICE = "bluetoothd does not run: start the service bluetooth"

_TABLE = (
    _Row("org.bluez.Error.Failed", "le-connection-abort-by-local", Reason.REFUSED, _RETRY),
    _Row("org.bluez.Error.Failed", "Software caused connection abort", Reason.REFUSED, _RETRY),
    _Row("org.bluez.Error.Failed", "Not connected", Reason.LOST, "the link has ended"),
    _Row("org.bluez.Error.InProgress", "", Reason.BUSY, "another program uses the adapter"),
    _Row("org.bluez.Error.NotReady", "", Reason.NO_ADAPTER, "switch the adapter on; see rfkill"),
    _Row("org.bluez.Error.NotConnected", "", Reason.LOST, "the link has ended"),
    _Row("org.bluez.Error.AuthenticationFailed", "", Reason.DENIED, _PAIR),
    _Row("org.bluez.Error.AuthenticationRejected", "", Reason.DENIED, _PAIR),
    _Row("org.bluez.Error.AuthenticationCanceled", "", Reason.DENIED, _PAIR),
    _Row("org.bluez.Error.AuthenticationTimeout", "", Reason.DENIED, _PAIR),
    _Row("org.bluez.Error.NotAuthorized", "", Reason.DENIED, _PAIR),
    _Row("org.bluez.Error.NotPermitted", "Not paired", Reason.DENIED, _PAIR),
    _Row("org.bluez.Error.DoesNotExist", "", Reason.NOT_FOUND, "wait until it advertises again"),
    _Row(
        "org.freedesktop.DBus.Error.UnknownObject",
        "",
        Reason.NOT_FOUND,
        "BlueZ has forgotten the device; wait until it advertises again",
    ),
    _Row("org.freedesktop.DBus.Error.UnknownMethod", "", Reason.NOT_FOUND, "no such object"),
    _Row("org.freedesktop.DBus.Error.ServiceUnknown", "", Reason.NO_ADAPTER, _SERVICE),
    _Row("org.freedesktop.DBus.Error.NameHasNoOwner", "", Reason.NO_ADAPTER, _SERVICE),
    _Row("org.freedesktop.DBus.Error.NoReply", "", Reason.NO_ADAPTER, "bluetoothd has gone"),
    _Row(
        "org.freedesktop.DBus.Error.AccessDenied",
        "",
        Reason.DENIED,
        "the hub's user needs the group bluetooth",
    ),
    _Row("", "failed to discover services", Reason.LOST, _RETRY),
    _Row("", "Not connected", Reason.LOST, "the link has ended"),
    _Row("", "Service Discovery has not been performed yet", Reason.LOST, "the link has ended"),
    _Row("", "device '", Reason.NOT_FOUND, "wait until it advertises again"),
    _Row("", "adapter '", Reason.NO_ADAPTER, "see the configured adapter, and hciconfig"),
)

_DENIED = frozenset(
    {
        BleakBluetoothNotAvailableReason.DENIED_BY_USER,
        BleakBluetoothNotAvailableReason.DENIED_BY_SYSTEM,
        BleakBluetoothNotAvailableReason.DENIED_BY_UNKNOWN,
    }
)
_UNPAIRED = frozenset(
    {
        BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHENTICATION,
        BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHORIZATION,
        BleakGATTProtocolErrorCode.INSUFFICIENT_ENCRYPTION_KEY_SIZE,
        BleakGATTProtocolErrorCode.INSUFFICIENT_ENCRYPTION,
    }
)


def explain(error: Exception, doing: str) -> TransportError:
    """The error as the gateway knows it. What no row knows is REFUSED, with the stack's own words."""
    reason, advice = _judge(error)
    said = str(error) or type(error).__name__
    if isinstance(error, BleakBluetoothNotAvailableError | BleakGATTProtocolError):
        said = next(part for part in error.args if isinstance(part, str))  # else a tuple's repr
    return TransportError(reason, f"{doing}: got {said}" + (f": {advice}" if advice else ""))


def _judge(error: Exception) -> tuple[Reason, str]:
    match error:
        case BleakBluetoothNotAvailableError():
            if error.reason in _DENIED:
                return Reason.DENIED, "the hub's user may not use Bluetooth"
            return Reason.NO_ADAPTER, "plug in or switch on a Bluetooth LE adapter"
        case BleakDeviceNotFoundError():
            return Reason.NOT_FOUND, "wait until it advertises again"
        case BleakCharacteristicNotFoundError():
            return Reason.REFUSED, "the device lacks this characteristic"
        case BleakGATTProtocolError():
            if error.code in _UNPAIRED:
                return Reason.DENIED, _PAIR
            return Reason.REFUSED, ""
        case TimeoutError():
            return Reason.TIMEOUT, "no answer in time"
        case EOFError() | OSError() | DBusFastError():
            return Reason.NO_ADAPTER, "the system bus has gone"
        case _:
            return _look_up(error)


def _look_up(error: Exception) -> tuple[Reason, str]:
    name = error.dbus_error if isinstance(error, BleakDBusError) else ""
    for row in _TABLE:
        if row.name == name and row.text in str(error):
            return row.reason, row.advice
    return Reason.REFUSED, ""
