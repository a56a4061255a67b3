"""Numbers that others assigned: UUIDs, MDC codes, units. Facts only, no logic.

Nomenclature codes are ISO/IEEE 11073-10101 as 32-bit context-free numbers, (partition << 16) + term code.
UCUM and LOINC pairings follow the HL7 Personal Health Device guide 2.0.0. The simulator may import this
module and no other of `drivers`: a wrong number here is found by the byte vectors, not by the simulator.
"""

from enum import IntEnum
from typing import Final

# --- Bluetooth SIG assigned numbers ------------------------------------------------------------------


def uuid16(number: int) -> str:
    """The 128-bit form of a 16-bit number that the Bluetooth SIG assigned, in lower case."""
    return f"0000{number:04x}-0000-1000-8000-00805f9b34fb"


HEART_RATE_SERVICE: Final = uuid16(0x180D)
HEART_RATE_MEASUREMENT: Final = uuid16(0x2A37)
BODY_SENSOR_LOCATION: Final = uuid16(0x2A38)
BLOOD_PRESSURE_SERVICE: Final = uuid16(0x1810)
BLOOD_PRESSURE_MEASUREMENT: Final = uuid16(0x2A35)
BLOOD_PRESSURE_FEATURE: Final = uuid16(0x2A49)
BATTERY_SERVICE: Final = uuid16(0x180F)
BATTERY_LEVEL: Final = uuid16(0x2A19)

# --- Units: MDC dimension codes, partition 4 ---------------------------------------------------------


class Unit(IntEnum):
    """MDC_DIM_* unit codes of ISO/IEEE 11073-10101."""

    NOS = 262144
    """Not otherwise specified: the device did not say."""
    DIMLESS = 262656
    PERCENT = 262688
    MILLI_SEC = 264338
    BEAT_PER_MIN = 264864
    RESP_PER_MIN = 264928
    KILO_PASCAL = 265987
    MMHG = 266016
    JOULE_KILO = 266115
    MILLI_VOLT = 266418
    MICRO_VOLT = 266419
    DEGC = 268192


UCUM: Final[dict[Unit, str]] = {
    Unit.DIMLESS: "1",
    Unit.PERCENT: "%",
    Unit.MILLI_SEC: "ms",
    Unit.BEAT_PER_MIN: "/min",
    Unit.RESP_PER_MIN: "/min",
    Unit.KILO_PASCAL: "kPa",
    Unit.MMHG: "mm[Hg]",
    Unit.JOULE_KILO: "kJ",
    Unit.MILLI_VOLT: "mV",
    Unit.MICRO_VOLT: "uV",
    Unit.DEGC: "Cel",
}
"""UCUM code of a unit. `Unit.NOS` has none: an unknown unit is not given a name."""

# --- Observations: MDC codes -------------------------------------------------------------------------


class Code(IntEnum):
    """MDC codes of what is observed."""

    ATTR_VAL_BATT_CHARGE = 67996
    ECG_ELEC_POTL = 131328
    """ECG voltage, lead not specified."""
    ECG_ELEC_POTL_I = 131329
    ECG_ELEC_POTL_II = 131330
    ECG_TIME_PD_RR_GL = 147240
    ECG_HEART_RATE = 147842
    PULS_OXIM_PULS_RATE = 149530
    PULS_RATE_NON_INV = 149546
    """Pulse rate from a cuff."""
    PRESS_BLD_NONINV = 150020
    """Systolic, diastolic and mean together."""
    PRESS_BLD_NONINV_SYS = 150021
    PRESS_BLD_NONINV_DIA = 150022
    PRESS_BLD_NONINV_MEAN = 150023
    TEMP_BODY = 150364
    PULS_OXIM_PLETH = 150452
    PULS_OXIM_SAT_O2 = 150456
    BLD_PERF_INDEX = 150488
    """Perfusion index."""
    RESP_RATE = 151562
    PULS_OXIM_PLETH_RESP_RATE = 151658
    """Respiration rate from the pulse wave."""
    IMPED_TTHOR = 151780
    """Thoracic impedance: the respiration waveform."""

    BLOOD_PRESSURE_MEASUREMENT_STATUS = 8410608

    # 11073-10101 leaves 0xF000 to 0xFFFF of each partition to private use. These have no assigned code.
    WARDLINK_PPG_RED = 0x2F001
    """Raw red photoplethysmogram."""
    WARDLINK_PPG_INFRARED = 0x2F002
    """Raw infrared photoplethysmogram."""
    WARDLINK_ENERGY_EXPENDED = 0x2F003
    """Energy expended since the last reset, as the Heart Rate service reports it."""
    WARDLINK_USER_ID = 0x2F004
    """Which of its users a device that several people share says that it measured: a number of the device's own."""
    WARDLINK_PPG_RATIO = 0x2F005
    """The ratio of ratios of red to infrared light."""


ECG_CODES: Final = frozenset({Code.ECG_ELEC_POTL, Code.ECG_ELEC_POTL_I, Code.ECG_ELEC_POTL_II})
"""Every code of an ECG voltage."""

LOINC: Final[dict[Code, str]] = {
    Code.ECG_HEART_RATE: "8867-4",
    Code.PULS_OXIM_PULS_RATE: "8867-4",
    Code.PULS_OXIM_SAT_O2: "59408-5",
    Code.PULS_RATE_NON_INV: "8867-4",
    Code.PRESS_BLD_NONINV: "85354-9",
    Code.PRESS_BLD_NONINV_SYS: "8480-6",
    Code.PRESS_BLD_NONINV_DIA: "8462-4",
    Code.PRESS_BLD_NONINV_MEAN: "8478-0",
    Code.TEMP_BODY: "8310-5",
    Code.RESP_RATE: "9279-1",
    Code.PULS_OXIM_PLETH_RESP_RATE: "9279-1",
}
"""LOINC code that a vital sign carries beside its MDC code."""


class BodySite(IntEnum):
    """Body Sensor Location of the Heart Rate service (0x2A38)."""

    OTHER = 0
    CHEST = 1
    WRIST = 2
    FINGER = 3
    HAND = 4
    EAR_LOBE = 5
    FOOT = 6
