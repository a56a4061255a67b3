"""`wardlink receive`: from the broker to a file or a database, and how it goes on the terminal."""

import asyncio
import json
import logging
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass

from gateway.clock import Clock, SystemClock
from gateway.journal.keys import HubKey
from gateway.journal.readers import ClinicKey
from gateway.receiver.intake import Report
from gateway.receiver.open import open_store
from gateway.receiver.receive import Receiver
from gateway.receiver.settings import ReceiverConfig

NS_PER_S = 1_000_000_000
EVERY_S = 1.0
"""Between two lines of progress."""
CLEAR = "\r\x1b[K"
"""Back to the start of the line, and nothing on it."""


def receiver_of(config: ReceiverConfig, key: HubKey, clock: Clock) -> Receiver:
    """The receiver that a configuration describes."""
    return Receiver(
        config.broker,
        config.tenant,
        config.hubs,
        clock,
        store=open_store(config, clock),
        client_id=f"wardlink-receiver-{config.tenant}-{config.id}",
        rng=random.SystemRandom(),
        name=config.id,
        sign=key.sign,
        clinic_key=ClinicKey.load(config.clinic_key_file) if config.clinic_key_file else None,
        share=config.share,
        grace_s=config.grace_s,
        session_expiry_s=config.session_expiry_s,
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """How it goes. `trouble` says why nothing can be stored now."""

    is_connected: bool
    trouble: str | None
    entries_per_s: float
    report: Report

    def as_json(self) -> str:
        """One line for machines."""
        head = {"connected": self.is_connected, "trouble": self.trouble}
        return json.dumps(
            head | asdict(self.report) | {"entries_per_s": round(self.entries_per_s, 1)}
        )

    def as_text(self) -> str:
        """One line for people."""
        state = "connected" if self.is_connected else "not connected"
        if self.trouble is not None:
            state = f"cannot store: {self.trouble}"
        return f"{state}  {self.entries_per_s:.0f} entries/s  {summary(self.report)}"


def summary(report: Report) -> str:
    """The counts in words."""
    return (
        f"{report.entries} entries of {report.hubs} hubs, {report.repeats} repeats removed,"
        f" {report.rejected} rejected, {report.open_gaps} open gaps ({report.missing} missing)"
    )


async def tell(receiver: Receiver, clock: Clock, *, as_json: bool) -> None:
    """A line every second: on a terminal over the last one, for machines below it. Until cancelled."""
    last_ns, last = clock.boottime_ns(), receiver.report().entries
    while True:
        await asyncio.sleep(EVERY_S)
        now_ns, report = clock.boottime_ns(), receiver.report()
        rate = (report.entries - last) * NS_PER_S / max(1, now_ns - last_ns)
        last_ns, last = now_ns, report.entries
        progress = Progress(receiver.is_connected, receiver.trouble, rate, report)
        if as_json:
            print(progress.as_json(), flush=True)
        else:
            print(CLEAR + progress.as_text(), end="", flush=True)


@contextmanager
def _logs_above() -> Iterator[None]:
    """A line of the log takes the place of the progress, which is written anew below it."""

    def clear(_record: logging.LogRecord) -> bool:
        print(CLEAR, end="", flush=True)
        return True

    handlers = logging.getLogger().handlers
    for handler in handlers:
        handler.addFilter(clear)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(clear)


async def receive(
    config: ReceiverConfig, key: HubKey, stop: asyncio.Event, *, as_json: bool
) -> None:
    """Receives until `stop`; then says what came."""
    clock = SystemClock()
    receiver = receiver_of(config, key, clock)
    on_terminal = sys.stdout.isatty() and not as_json
    with _logs_above() if on_terminal else nullcontext():
        await _until(stop, receiver, clock, as_json=as_json, told=as_json or on_terminal)
    report = receiver.report()
    if as_json:
        print(Progress(receiver.is_connected, receiver.trouble, 0.0, report).as_json(), flush=True)
    else:
        print(f"{CLEAR if on_terminal else ''}receiver: {summary(report)}", flush=True)


async def _until(
    stop: asyncio.Event, receiver: Receiver, clock: Clock, *, as_json: bool, told: bool
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(receiver.run())]
        if told:
            tasks.append(group.create_task(tell(receiver, clock, as_json=as_json)))
        await stop.wait()
        for task in tasks:
            task.cancel()
