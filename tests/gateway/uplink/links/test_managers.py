"""NetworkManager and ModemManager on a private bus: what they say, how they go, and what they are asked."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from dbus_fast import Variant

from firmware_sim.bluez.bus import PrivateBus, installed
from firmware_sim.network import NM_DEVICE, NM_PATH, VirtualNetwork
from gateway.config.links import Link, Metered
from gateway.uplink.links.managers import ManagerError, Managers
from tests.gateway.uplink.bench import running, until

pytestmark = pytest.mark.skipif(not installed(), reason="dbus-daemon is not installed")
WIFI, MOBILE = Link("wifi", "wlan0"), Link("4g", "wwan0", reactivate=True, modem_reset=True)


class Bench:
    def __init__(self, network: VirtualNetwork) -> None:
        self.network = network
        self.changes = 0
        self.managers = Managers((WIFI, MOBILE), self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def metered(self, link: Link, expected: Metered) -> None:
        await until(lambda: self.managers.metered(link) is expected, f"{link.name} {expected}")


def drive(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    story: Callable[[Bench], Awaitable[None]],
) -> None:
    @contextlib.asynccontextmanager
    async def world() -> AsyncIterator[Bench]:
        async with PrivateBus(folder) as bus, VirtualNetwork(bus.address) as network:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
            yield Bench(network)

    async def main() -> None:
        async with world() as bench, running(bench.managers.run()):
            await story(bench)

    asyncio.run(main())


def test_what_a_link_costs_is_networkmanagers_word_and_its_guesses_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(bench: Bench) -> None:
        await bench.network.add_device("wlan0", metered=4)
        await bench.metered(WIFI, Metered.NO)
        before = bench.changes
        for number, word in ((1, "YES"), (2, "NO"), (3, "YES"), (0, "AUTO"), (4, "NO")):
            await bench.network.change_device("wlan0", Metered=number)
            await bench.metered(WIFI, Metered[word])
        assert bench.changes >= before + 5
        assert bench.managers.metered(MOBILE) is Metered.AUTO
        assert bench.managers.words(WIFI) == {"network": "activated", "connectivity": "full"}
        await bench.network.change_device("wlan0", Ip4Connectivity=2, State=120)
        await until(
            lambda: bench.managers.words(WIFI) == {"network": "failed", "connectivity": "portal"},
            "the portal is told",
        )

    drive(tmp_path, monkeypatch, story)


def test_a_manager_that_goes_is_forgotten_and_one_that_comes_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(bench: Bench) -> None:
        await bench.network.add_device("wlan0", metered=2)
        await bench.metered(WIFI, Metered.NO)
        await bench.network.manager.stop()
        await bench.metered(WIFI, Metered.AUTO)
        await bench.network.manager.start()
        await bench.metered(WIFI, Metered.NO)

    drive(tmp_path, monkeypatch, story)


def test_what_a_bus_said_that_has_gone_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with PrivateBus(tmp_path) as bus:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
            network = VirtualNetwork(bus.address)
            await network.__aenter__()
            await network.add_device("wlan0", metered=2)
            bench = Bench(network)
            async with running(bench.managers.run()):
                await bench.metered(WIFI, Metered.NO)
                os.kill(bus.pid, signal.SIGKILL)
                await bench.metered(WIFI, Metered.AUTO)
                assert bench.managers.words(WIFI) == {}
            await network.__aexit__()

    asyncio.run(main())


def test_the_last_steps_ask_for_the_links_own_connection_and_modem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(bench: Bench) -> None:
        network, managers = bench.network, bench.managers
        for ask in (managers.reactivate, managers.reset_modem):
            with pytest.raises(ManagerError, match=r"there is no system bus|knows no"):
                await ask("wwan0")
        device = await network.add_device("wwan0", 1, active=f"{NM_PATH}/ActiveConnection/3")
        modem = await network.add_modem("wwan0", signal_percent=71)
        await until(lambda: len(managers.words(MOBILE)) == 4, "modem and device")
        assert managers.words(MOBILE)["modem"] == "connected"
        assert managers.words(MOBILE)["signal_percent"] == "71"
        await managers.reactivate("wwan0")
        await managers.reset_modem("wwan0")
        assert network.activations == [(f"{NM_PATH}/Settings/1", device)]
        assert network.resets == [modem]
        path = await network.lose_address("wwan0")
        await network.manager.change(path, NM_DEVICE, {"State": Variant("u", 30)})
        await until(lambda: managers.words(MOBILE)["network"] == "disconnected", "it is told")
        await managers.reactivate("wwan0")
        assert len(network.activations) == 2, "a modem that lost its interface is still known"
        network.refuses = True
        for ask in (managers.reactivate, managers.reset_modem):
            with pytest.raises(ManagerError, match="Not authorized"):
                await ask("wwan0")

    drive(tmp_path, monkeypatch, story)


def test_without_a_bus_nothing_is_known_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")

    async def main() -> None:
        changed = asyncio.Event()
        managers = Managers((WIFI,), changed.set)
        async with running(managers.run()):
            await asyncio.wait_for(changed.wait(), 40)
            assert managers.metered(WIFI) is Metered.AUTO
            with pytest.raises(ManagerError, match="knows no"):
                await managers.reactivate("wlan0")

    asyncio.run(main())


def test_links_that_leave_nothing_to_them_do_not_ask(tmp_path: Path) -> None:
    async def main() -> None:
        links = (Link("wifi", "wlan0", metered=Metered.NO), Link("4g", "w0", metered=Metered.YES))
        await asyncio.wait_for(Managers(links, lambda: None).run(), 40)

    asyncio.run(main())
    assert not list(tmp_path.iterdir())
