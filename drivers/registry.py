"""The table of drivers: ours, and those of third parties through the entry-point group `wardlink.drivers`."""

from importlib.metadata import entry_points

from drivers.ble import blood_pressure, heart_rate
from drivers.contract import Driver
from drivers.serial import openview

GROUP = "wardlink.drivers"


class DriverConflict(Exception):  # noqa: N818 - an installation at fault, not an error of a driver
    """Two drivers with one name, or an entry point that is no driver."""


def all_drivers() -> dict[str, Driver]:
    """Every driver by name.

    Raises:
        DriverConflict: an installed third-party package offers a name that is taken, or something else than a Driver.
    """
    table = {
        driver.name: driver
        for driver in (heart_rate.DRIVER, blood_pressure.DRIVER, *openview.DRIVERS)
    }
    for point in entry_points(group=GROUP):
        driver = point.load()
        if not isinstance(driver, Driver):
            raise DriverConflict(
                f"entry point {point.value}: got {type(driver).__name__}, expected a Driver"
            )
        if driver.name in table:
            raise DriverConflict(
                f"entry point {point.value}: the driver name {driver.name} is taken"
            )
        table[driver.name] = driver
    return table
