"""[[link]]: what a configuration may say of the ways to the broker."""

from pathlib import Path

import pytest

from gateway.config.links import Allow, Link, Metered, Quiet
from tests.gateway.test_config import GOOD, check, faults

FAR = GOOD.replace('host = "localhost"', 'host = "mqtt.example.org"\n[broker.tls]\n{tls}')
LINK = """
[[link]]
name = "wifi"
interface = "wlan0"
"""


def far(folder: Path, text: str) -> str:
    """A configuration whose broker is elsewhere, so that links make sense."""
    names = ("ca_file", "certificate_file", "key_file")
    for name in names:
        (folder / name).touch()
    return FAR.format(tls="\n".join(f'{name} = "{name}"' for name in names)) + text


def test_links(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD).links == ()
    second = LINK.replace("wifi", "4g").replace("wlan0", "wwan0") + (
        'metered = true\nwaveform = "always"\nwaveform_bytes_month = 1000\n'
        'quiet = "22:30-06:00 UTC"\nmodem_reset = true\n'
    )
    wifi, mobile = check(tmp_path, far(tmp_path, LINK + second)).links
    assert wifi == Link("wifi", "wlan0")
    assert (mobile.metered, mobile.waveform, mobile.modem_reset) == (
        Metered.YES, Allow.ALWAYS, True,
    )  # fmt: skip
    assert mobile.quiet == Quiet(22 * 60 + 30, 6 * 60, utc=True)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (LINK.replace("name", "nane"), "link[0].nane"),
        (LINK.replace("wlan0", "a-name-that-is-too-long"), "link[0].interface"),
        (LINK.replace("wlan0", "wlan/0"), "link[0].interface"),
        (LINK + 'metered = "yes"', "link[0].metered"),
        (LINK + 'waveform = "sometimes"', "link[0].waveform"),
        (LINK + "waveform_bytes_month = 5", "link[0].waveform_bytes_month"),
        (LINK + 'quiet = "22:00-06:00"', "link[0].quiet"),
        (LINK + 'quiet = "22:00-24:00 UTC"', "link[0].quiet"),
        (LINK + 'quiet = "06:00-06:00 UTC"', "link[0].quiet"),
        (LINK + "reactivate = 1", "link[0].reactivate"),
        (LINK + LINK.replace("wlan0", "wlan1"), "link[1].name"),
        (LINK + LINK.replace("wifi", "other"), "link[1].interface"),
    ],
)
def test_what_is_wrong_with_a_link_is_said(tmp_path: Path, text: str, key: str) -> None:
    assert key in faults(tmp_path, far(tmp_path, text))


def test_links_to_this_machine_and_links_that_are_no_tables(tmp_path: Path) -> None:
    assert "none: the broker is on this machine" in faults(tmp_path, GOOD + LINK)["link"]
    assert "an array of tables" in faults(tmp_path, "link = 3\n" + GOOD)["link"]
