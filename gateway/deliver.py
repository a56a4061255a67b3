"""The half of the hub that has the network: it reads the journal and delivers it. It has no devices and no kernels."""

import asyncio
import logging
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict

from gateway import __version__, status
from gateway.clock import Clock, SystemClock
from gateway.config.delivery import Ack
from gateway.config.hub import spoken_on
from gateway.config.journal import Readers
from gateway.config.load import Config
from gateway.config.profile import Protocol
from gateway.journal.entry import Stream
from gateway.journal.keys import HubKey
from gateway.journal.reader import JournalReader
from gateway.journal.readers import choose
from gateway.journal.storage import DISK
from gateway.notify import Notifier
from gateway.spool import Spool
from gateway.uplink.commands import Commands, Inbox
from gateway.uplink.hub_wires import hub_wires
from gateway.uplink.judge import Judge
from gateway.uplink.links.links import Links
from gateway.uplink.links.strips import Strips
from gateway.uplink.patience import timing_of
from gateway.uplink.receipts import Receipts
from gateway.uplink.retimed import Retimed
from gateway.uplink.signature import VerifyKeys
from gateway.uplink.uplink import Uplink
from gateway.verbosity import Verbosity

log = logging.getLogger(__name__)

DRAIN_S = 5.0
"""How long a stop waits for the broker. What is not delivered by then is in the journal and goes out next time."""


class Deliver:
    """From the journal to the broker."""

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        notifier: Notifier | None = None,
        give_back: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes the journal's cursor, whose one writer this is; nothing runs yet. `give_back`: see Uplink.

        Raises:
            JournalError: another process delivers this journal, or the state directory cannot be used.
        """
        self._config = config
        self._clock = clock or SystemClock()
        self._notifier = notifier or Notifier()
        self._give_back = give_back
        hub = config.hub
        hub.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The same key file as the writer's: it signs what is said, and opens a journal that is not sealed.
        self._key = HubKey.find(hub.state_dir, os.environ)
        kept = config.journal
        self._reader = JournalReader(
            hub.state_dir / "journal",
            hub=hub.id,
            hub_key=self._key,
            readers=choose(kept.readers, self._key.reader, kept.clinic_key_file),
        )
        self._uplink: Uplink | None = None
        self._links: Links | None = None
        self._delivering: asyncio.Task[None] | None = None
        self._obeying: asyncio.Task[None] | None = None
        self._inbox = Inbox() if config.commands.operators else None
        self._watching: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Waits for a journal, delivers it until `stop` is set, then drains what is durable by then."""
        async with (
            status.serve(self._config.hub.runtime_dir / status.UPLINK, self.snapshot),
            asyncio.TaskGroup() as group,
        ):
            watchdog = group.create_task(self._watch(), name="watchdog")
            self._notifier.send("READY=1")
            following = group.create_task(self._follow(group), name="following")
            await stop.wait()
            self._notifier.send("STOPPING=1")
            following.cancel()
            await self._end()
            watchdog.cancel()
        self._reader.close()

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        """For each commit of the writer's a wake for the uplink."""
        log.info("uplink: looks for the journal")
        await self._reader.begin()
        uplink = self._uplink = self._build()
        if self._inbox is not None:
            self._obeying = group.create_task(self._obey(self._inbox, uplink), name="commands")
        self._delivering = group.create_task(uplink.run(), name="uplink")
        if self._links is not None:
            self._links.wake = uplink.wake
            self._watching = group.create_task(self._links.run(), name="links")
            strips = Strips(uplink.asks, self._clock, self._links.wants_strips)
        else:
            strips = None
        while True:
            if strips is not None:
                strips.follow(self._reader.high_water(Stream.ALARM))
            await self._reader.advanced()
            uplink.wake()

    async def _end(self) -> None:
        if self._uplink is None or self._delivering is None:
            return
        if self._obeying is not None:
            self._obeying.cancel()
        self._reader.refresh()
        if not await self._uplink.drain(DRAIN_S):
            log.info("uplink: not all delivered; the rest stays in the journal")
        self._delivering.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _build(self) -> Uplink:
        config, hub = self._config, self._config.hub
        by_receiver = config.delivery.ack is Ack.RECEIVER
        rng = random.SystemRandom()
        wires = hub_wires(
            config.broker,
            hub.client_id,
            self._key.sign,
            Receipts.filter(hub) if by_receiver else None,
            Commands.filter(hub) if self._inbox is not None else None,
            # Only there does an acknowledgement say nothing, and nobody else says anything.
            () if by_receiver or config.broker.protocol is Protocol.V5 else spoken_on(hub),
        )
        links = self._links = Links.of(config, wires, self._clock, rng) if config.links else None
        return Uplink(
            Retimed(self._reader, self._clock),
            links.connect if links else wires,
            self._clock,
            hub,
            version=__version__,
            window_bytes=config.broker.window_bytes,
            rng=rng,
            timing=timing_of(config.broker),
            pace=links.pace if links else None,
            policy=links.policy if links else None,
            receipts=Receipts(hub, self._reader.epoch, VerifyKeys(config.delivery.receivers))
            if by_receiver
            else None,
            delivery=config.delivery,
            commands=None if self._inbox is None else self._inbox.put,
            # Whoever may not read a record need not know what a person wears either.
            devices=None if config.journal.readers is Readers.CLINIC else config.named,
            give_back=self._give_back,
        )

    async def _obey(self, inbox: Inbox, uplink: Uplink) -> None:
        """Takes commands until cancelled. A disk that cannot remember them leaves everything else as it is."""
        config, hub, epoch = self._config, self._config.hub, self._reader.epoch
        try:
            spool = await asyncio.to_thread(Spool, hub.state_dir, DISK)
        except OSError as error:
            log.warning("uplink: commands are not taken: %s", error)
            return
        names = tuple(row.device for row in config.named)
        commands = Commands(
            hub,
            epoch,
            Judge(hub, epoch, config.commands.operators, names),
            spool,
            self._clock,
            inbox=inbox,
            asks=uplink.asks,
            letters=uplink.letters,
            verbosity=Verbosity(self._clock),
            report=lambda: status.fetch_all(hub.runtime_dir),
        )
        await commands.run()

    async def _watch(self) -> None:
        """Feeds systemd's watchdog as long as the loop turns; a silent broker is no fault of this process."""
        period_s = self._notifier.watchdog_s
        while period_s is not None:
            self._notifier.send("WATCHDOG=1")
            await asyncio.sleep(period_s / 2)

    def snapshot(self) -> Mapping[str, object]:
        """This half of `wardlink status`. `uplink` is None while there is no journal yet."""
        reader, uplink = self._reader, self._uplink.status() if self._uplink else None
        return {
            "hub": self._config.hub.id,
            "version": __version__,
            "mode": self._config.hub.mode,
            "clock": asdict(self._clock.read()),
            "uplink": asdict(uplink) if uplink else None,
            "links": asdict(self._links.status()) if self._links else None,
            "wakes": reader.wakes,
            "backlog": {
                stream.value: state.waiting
                for stream, state in (uplink.streams.items() if uplink else ())
            },
        }
