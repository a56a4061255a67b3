"""The composition root: both halves of the hub in one process. Nobody imports it but cli."""

import asyncio

from gateway.acquire import Acquire
from gateway.config.load import Config
from gateway.deliver import Deliver
from gateway.notify import Notifier


class App:
    """One hub. The halves meet in the journal alone, as they do in two processes."""

    def __init__(self, config: Config) -> None:
        """Opens the journal; nothing runs yet.

        Raises:
            JournalError: the state directory cannot be used, or its disk has too little room for a new journal. On a
                hub that runs in a home already it is a fault record instead: a shorter buffer is better than none.
        """
        self._acquire = Acquire(config)
        # The half with the devices speaks for both to the service manager: it is ready last and ends first.
        self._deliver = Deliver(config, notifier=Notifier({}))

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then ends in order: links, intake, journal, uplink."""
        written = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver.run(written), name="deliver")
            await self._acquire.run(stop)
            written.set()
