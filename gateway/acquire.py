"""The half of the hub that has the devices: links, conditioner, journal. It has no network and knows of no broker."""

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from functools import partial

from drivers.contract import BleLink, SerialLink
from drivers.model import ClockReading, Event, EventKind
from gateway import __version__, budget, status
from gateway.audit import Audit
from gateway.clock import Clock, SystemClock
from gateway.clock_watch import ClockLog, ClockSets
from gateway.conditioner import Conditioner
from gateway.config.device import Device
from gateway.config.load import Config
from gateway.intake import Intake
from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.eviction import eviction_event
from gateway.journal.home import is_begun
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.readers import choose
from gateway.journal.scan import Damage
from gateway.notify import Notifier
from gateway.signal.jit import IMPLEMENTATION
from gateway.supervisor import Supervisor
from gateway.transport.base import Transport
from gateway.transport.ble import BleRadio, BleTransport
from gateway.transport.serial import SerialTransport
from gateway.verbosity import Verbosity
from gateway.waveform import WaveformCodec

log = logging.getLogger(__name__)


HELD_NS = 1_000_000_000
"""A session gives out what it holds after a second at the latest."""


def _codec(config: Config) -> WaveformCodec | None:
    """What puts samples into blocks, its kernels loaded: at the first commit they would make the devices wait."""
    if not config.in_blocks:
        return None
    codec = WaveformCodec()
    codec.load()
    return codec


class Acquire:
    """From the devices into the journal."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        """Opens the journal, whose one writer this is; nothing runs yet.

        Raises:
            JournalError: the state directory cannot be used, or its disk has too little room for a new journal. On a
                hub that runs in a home already it is a fault record instead: a shorter buffer is better than none.
        """
        self._config = config
        self._clock = clock or SystemClock()
        self._rng = random.SystemRandom()
        self._notifier = Notifier()
        hub = config.hub
        hub.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = HubKey.find(hub.state_dir, os.environ)
        directory = hub.state_dir / "journal"
        self._shortage = budget.disk_shortage(config, directory)
        if self._shortage and not is_begun(directory):
            raise JournalError(self._shortage)
        self._journal = Journal.open(
            directory,
            hub=hub.id,
            clock=self._clock,
            hub_key=key,
            max_bytes=config.journal.max_bytes,
            quota_bytes=budget.quota_bytes(config),
            readers=choose(config.journal.readers, key.reader, config.journal.clinic_key_file),
            codec=_codec(config),
        )
        # Before anything is appended: it looks at how far the journal was.
        self._audit = Audit(
            hub.state_dir,
            self._clock,
            epoch=self._journal.epoch,
            high_water=self._journal.high_water(Stream.AUDIT),
            damage=self._journal.recovery.damage,
        )
        self._verbosity = Verbosity(self._clock)
        self._intake = Intake(
            self._journal,
            Conditioner(config.devices),
            self._clock,
            mode=hub.mode,
            committed=self._committed,
            clock_log=ClockLog(self._last_commit()),
        )
        self._supervisors: list[Supervisor] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then ends in order: links, intake, journal. It waits for nobody who reads."""
        async with AsyncExitStack() as stack:
            radio = await self._radio(stack)
            await self._announce()
            socket = self._config.hub.runtime_dir / status.ACQUIRE
            await stack.enter_async_context(status.serve(socket, self.snapshot))
            async with asyncio.TaskGroup() as group:
                intake = group.create_task(self._intake.run(), name="intake")
                watchdog = group.create_task(self._watch(), name="watchdog")
                clock = group.create_task(self._watch_clock(), name="clock")
                auditing = group.create_task(self._take_up_commands(), name="audit")
                async with self._devices(radio):
                    self._notifier.send("READY=1")
                    log.info(
                        "hub %s runs with %d devices", self._config.hub.id, len(self._supervisors)
                    )
                    await stop.wait()
                    self._notifier.send("STOPPING=1")
                watchdog.cancel()
                clock.cancel()
                auditing.cancel()
                await self._intake.put("", self._event(EventKind.STOPPED, "asked"))
                await self._intake.close()
                await intake
            self._verbosity.end()
            await asyncio.to_thread(self._journal.close)

    async def _take_up_commands(self) -> None:
        """What the half with the network decided: also what waits from a time in which somebody might ask."""
        if self._config.commands.operators or self._audit.is_there:
            await self._audit.run(self._intake, self._verbosity)

    async def _radio(self, stack: AsyncExitStack) -> BleRadio | None:
        if any(isinstance(device.driver.link, BleLink) for device in self._config.devices):
            return await stack.enter_async_context(BleRadio())
        return None

    @asynccontextmanager
    async def _devices(self, radio: BleRadio | None) -> AsyncIterator[None]:
        before = self._before()
        async with asyncio.TaskGroup() as group:
            tasks = []
            for device in self._config.devices:
                supervisor = Supervisor(
                    device,
                    partial(self._transport, device, radio),
                    self._intake.sink(device.id, device.subject),
                    self._clock,
                    self._rng,
                    last_ns=self._journal.last_ns(device.id),
                    before=before,
                    silent_since_ns=self._silent_since(),
                )
                self._supervisors.append(supervisor)
                tasks.append(group.create_task(supervisor.run(), name=device.id))
            yield
            for task in tasks:
                task.cancel()

    def _transport(self, device: Device, radio: BleRadio | None) -> Transport:
        match device.driver.link:
            case SerialLink() as line if device.port is not None:
                return SerialTransport(device.port, line, self._clock)
            case BleLink(services) if device.address is not None and radio is not None:
                return BleTransport(device.address, services, self._clock, radio)
            case link:
                raise AssertionError(
                    f"{device.id}: the configuration let {link} through without its place"
                )

    def _before(self) -> str:
        """Why there was no data before this process; "" when the journal is new."""
        recovery = self._journal.recovery
        if recovery.previous_boot_id is None:
            return ""
        if recovery.previous_boot_id != self._clock.boot_id:
            return "reboot"
        return "hub_stopped" if recovery.clean else "hub_killed"

    def _silent_since(self) -> int | None:
        """The last commit of this boot, less what a session may hold: what came before that is in the journal."""
        last = self._last_commit()
        return None if last is None else last.boottime_ns - HELD_NS

    def _last_commit(self) -> ClockReading | None:
        """Both clocks at the last commit of this boot; None when this boot has none before this start."""
        recovery = self._journal.recovery
        return recovery.last_commit if recovery.previous_boot_id == self._clock.boot_id else None

    async def _announce(self) -> None:
        """What this start found goes into the journal before any device speaks."""
        recovery = self._journal.recovery
        reason = self._before() or "first_start"
        self._journal.append("", self._event(EventKind.STARTED, reason, f"wardlink {__version__}"))
        for damage in recovery.damage:
            self._journal.append("", self._damaged(damage))
        if self._shortage:
            log.warning("%s", self._shortage)
            self._journal.append("", self._event(EventKind.FAULT, "disk", self._shortage))
        await asyncio.to_thread(self._journal.commit)

    def _event(
        self, kind: EventKind, reason: str, text: str = "", lost: int | None = None
    ) -> Event:
        return Event(kind, self._clock.boottime_ns(), reason, text, lost=lost)

    def _committed(self) -> Iterable[Event]:
        """After each commit what was lost on disk gets its name."""
        for damage in self._journal.take_damage():
            yield self._damaged(damage)
        for evicted in self._journal.take_evictions():
            yield eviction_event(evicted, self._clock)
            # The intake asks for the next one when it has appended this one.
            self._journal.told(evicted)

    def _damaged(self, damage: Damage) -> Event:
        count = damage.last_sequence - damage.first_sequence + 1
        text = f"{damage.stream} {damage.first_sequence} to {damage.last_sequence}: {damage.reason}"
        return self._event(EventKind.GAP, "damage", text, lost=count)

    async def _watch(self) -> None:
        """Feeds systemd's watchdog as long as a record can still go all the way into the journal."""
        period_s = self._notifier.watchdog_s
        while period_s is not None:
            async with asyncio.timeout(period_s):
                await self._intake.durable()
            self._notifier.send("WATCHDOG=1")
            await asyncio.sleep(period_s / 2)

    async def _watch_clock(self) -> None:
        """A commit reads the clock and says what became of it: one at the start, and one each time it is set."""
        sets = ClockSets()
        try:
            while True:
                await self._intake.durable()
                await sets.wait()
        finally:
            sets.close()

    def snapshot(self) -> Mapping[str, object]:
        """This half of `wardlink status`."""
        reading, journal = self._clock.read(), self._journal.status()
        return {
            "hub": self._config.hub.id,
            "version": __version__,
            "mode": self._config.hub.mode,
            "boot_id": self._clock.boot_id,
            "clock": asdict(reading),
            "kernels": IMPLEMENTATION,
            "waiting_records": self._intake.waiting_records,
            "devices": [asdict(supervisor.status()) for supervisor in self._supervisors],
            "journal": asdict(journal),
            "budget": [asdict(left) for left in budget.left(self._config, journal)],
        }
