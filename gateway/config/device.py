"""[[device]]: which devices there are, and where each is found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drivers.contract import BleLink, Driver, Option
from gateway.config.kinds import NAME, build
from gateway.config.signals import CURVE, LIMITS, Limits, Spo2Curve
from gateway.tables import Key, Kind, Reader, integer, path, show, text


@dataclass(frozen=True, slots=True)
class Named:
    """A device as it is known where no drivers are loaded: its name, and that of its driver."""

    device: str
    driver: str


@dataclass(frozen=True, slots=True)
class Device:
    """One device: which driver, and where it is found (`address` for Bluetooth, `port` for serial)."""

    id: str
    driver: Driver
    address: str | None = None
    port: Path | None = None
    subject: str | None = None
    ecg_limits: Limits | None = None
    ppg_limits: Limits | None = None
    spo2_curve: Spo2Curve | None = None
    desaturation_percent: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)


ADDRESS = text(
    'a Bluetooth address such as "A4:C1:38:00:00:01"', r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}"
)

FALL = integer(1, 20, "percent below the mean of the last two minutes (usual are 3 and 4)")


ENDS = "the least and the greatest number that its converter gives of"


def device_keys(folder: Path, driver: Driver | None) -> tuple[Key, ...]:
    """The keys of a [[device]]; of every kind of device while its driver is not known."""
    keys = [
        Key("id", NAME, "the device's name in every record", required=True),
        Key("driver", NAME, "its driver: see `wardlink drivers`", required=True),
        Key("subject", NAME, "pseudonym of the person it is bound to; without it: unknown"),
        Key("ecg_limits", LIMITS, f"{ENDS} its ECG; without them a lead that is off is only flat"),
        Key("ppg_limits", LIMITS, f"{ENDS} its red and infrared light"),
        Key("spo2_curve", CURVE, "its sensor's own calibration; without it light gives no SpO2"),
        Key(
            "desaturation_percent",
            FALL,
            "falls of its SpO2 by so much become events; without it none do",
        ),
    ]
    if driver is None or isinstance(driver.link, BleLink):
        keys.append(Key("address", ADDRESS, "its Bluetooth address", required=driver is not None))
    if driver is None or not isinstance(driver.link, BleLink):
        keys.append(
            Key(
                "port",
                path(folder),
                "its serial port, best from /dev/serial/by-id",
                required=driver is not None,
            )
        )
    keys.extend(_option_key(option) for option in (driver.options if driver else ()))
    return tuple(keys)


def _option_key(option: Option) -> Key:
    kind = Kind(option.expected, option.parse, {})
    return Key(option.name, kind, option.doc, option.default, option.required)


def _device(
    reader: Reader, value: object, at: str, drivers: Mapping[str, Driver], folder: Path
) -> Device | None:
    table = reader.table(value, at)
    if table is None:
        return None
    name = table.get("driver")
    driver = drivers.get(name) if isinstance(name, str) else None
    if driver is None and name is not None:
        reader.fault(f"{at}.driver", show(name), "one of " + ", ".join(sorted(drivers)))
    known = device_keys(folder, driver)
    # Without its driver nobody can say which of a device's keys are right.
    readable = (
        table if driver else {key: table[key] for key in table if key in {k.name for k in known}}
    )
    values = reader.values(readable, at, known)
    if driver is None:
        return None
    names = [option.name for option in driver.options]
    options = {name: values.pop(name) for name in names}
    return build(Device, reader, {**values, "driver": driver, "options": options})


def read_devices(
    reader: Reader, root: Mapping[str, object], drivers: Mapping[str, Driver], folder: Path
) -> tuple[Device, ...]:
    """The devices; those without a fault where one was noted."""
    tables = root.get("device", [])
    if not isinstance(tables, list):
        reader.fault("device", show(tables), "an array of tables: [[device]]")
        return ()
    devices = [
        _device(reader, table, f"device[{n}]", drivers, folder) for n, table in enumerate(tables)
    ]
    for key in ("id", "address", "port"):
        seen: dict[object, int] = {}
        for n, table in enumerate(tables):
            value = table.get(key) if isinstance(table, Mapping) else None
            if not isinstance(value, str):
                continue
            first = seen.setdefault(value.upper() if key == "address" else value, n)
            if first != n:
                reader.fault(
                    f"device[{n}].{key}", show(value), f"another than that of device[{first}]"
                )
    return tuple(device for device in devices if device is not None)


def read_named(root: Mapping[str, object]) -> tuple[Named, ...]:
    """The devices, whatever their drivers are. What is wrong with them is `read_devices`' to say."""
    tables = root.get("device", [])
    rows = tables if isinstance(tables, list) else []
    found = ((row.get("id"), row.get("driver")) for row in rows if isinstance(row, Mapping))
    return tuple(
        Named(device, driver)
        for device, driver in found
        if isinstance(device, str) and isinstance(driver, str)
    )
