"""The hub's links at work: connections over the one that is chosen, an end to those whose link is gone, the way back."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any

from gateway.clock import Clock
from gateway.config.broker import Broker
from gateway.config.links import Link, Metered
from gateway.config.load import Config
from gateway.journal.storage import FileStorage
from gateway.uplink.dial import Dialler
from gateway.uplink.links.ladder import Ladder, Step
from gateway.uplink.links.managers import ManagerError, Managers
from gateway.uplink.links.netlink import Facts
from gateway.uplink.links.pace import LinkPace
from gateway.uplink.links.policy import LinkPolicy, wants_strips
from gateway.uplink.links.probe import gets_through
from gateway.uplink.links.selector import LinkState, Selector
from gateway.uplink.links.status import LinksStatus, LinkStatus
from gateway.uplink.links.usage import ALL, Usage, month_of, month_text
from gateway.uplink.links.watch import Watch
from gateway.uplink.nodes import nodes_in_turn
from gateway.uplink.patience import NS_PER_S, Backoff, Timing, timing_of
from gateway.uplink.wire import (
    Dial,
    LinkWireFactory,
    Listener,
    Outgoing,
    Reason,
    UplinkError,
    Wire,
)

log = logging.getLogger(__name__)

QUICK_CONNECT_S = 4.0
"""How long a connection may take to be made while another link would do."""
WORDS = {
    LinkState.ABSENT: "is not there",
    LinkState.NO_CARRIER: "has no carrier",
    LinkState.NO_ADDRESS: "has no address",
}


class Links:
    """All methods are for the event loop's thread.

    Attributes:
        wake: to be called when something changed that the uplink has to look at.
        pace: the uplink's patience and back-off.
        policy: what the uplink may send over the link in use.
    """

    @classmethod
    def of(
        cls, config: Config, wires: LinkWireFactory, clock: Clock, rng: random.Random
    ) -> "Links":
        """The links of a configuration, with their counts in the state directory."""
        rows, timing = config.links, timing_of(config.broker)
        file = config.hub.state_dir / "links"
        usage = Usage(file, FileStorage(), tuple(row.name for row in rows))
        selector = Selector(len(rows), Backoff(timing, rng), rng)
        return cls(rows, config.broker, wires, clock, selector, usage, rng, timing=timing)

    def __init__(
        self,
        links: Sequence[Link],
        broker: Broker,
        wires: LinkWireFactory,
        clock: Clock,
        selector: Selector,
        usage: Usage,
        rng: random.Random,
        *,
        timing: Timing | None = None,
        ladder: Ladder | None = None,
    ) -> None:
        """`selector` is for as many links as there are, in the same order."""
        self.wake: Callable[[], None] = lambda: None
        self._watch = Watch(self._changed)
        self.policy = LinkPolicy(clock, usage, self.current)
        self.pace = LinkPace(
            selector, timing or Timing(), clock.boottime_ns, self._stir, self._watch.ask
        )
        self._links = links
        self._nodes = nodes_in_turn(broker, rng)
        self._wires = wires
        self._clock = clock
        self._selector = selector
        self._usage = usage
        self._dialler = Dialler()
        self._ladder = ladder or Ladder()
        self._managers = Managers(links, self._stir)
        self._event = asyncio.Event()
        self._ready = asyncio.Event()
        self._attempt: asyncio.Task[Wire] | None = None
        self._connection: tuple[Wire, Listener] | None = None
        self._last: int | None = None

    # --- For the uplink ----------------------------------------------------------------------------------

    async def connect(self, listener: Listener, will: Outgoing) -> Wire:
        """A connection over the link that is chosen now. Raises UplinkError."""
        await self._ready.wait()
        self._connection = None
        now = self._clock.boottime_ns()
        link = self._selector.begin(now)
        if link is None:
            raise UplinkError(Reason.UNREACHABLE, f"no link: {self._why()}")
        self._count(link, now)
        limit_s = QUICK_CONNECT_S if self._selector.has_other(now) else None
        self._attempt = asyncio.ensure_future(
            self._wires(listener, will, dial=self._dial(link), limit_s=limit_s)
        )
        try:
            wire = await self._attempt
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise self._gone(link) from None
        finally:
            self._attempt = None
        log.info("links: connected over %s", self._links[link].name)
        self._connection = (wire, listener)
        return wire

    def current(self) -> tuple[Link, bool] | None:
        """The link in use, and whether its bytes cost money; None while there is none."""
        current = self._selector.current
        if current is None:
            return None
        link = self._links[current]
        return link, self._metered(link) is not Metered.NO

    def wants_strips(self) -> bool:
        """Whether the link in use takes waveform only on request."""
        found = self.current()
        return found is not None and wants_strips(found[0], metered=found[1])

    # --- At work -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watches the links until cancelled."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    await stack.enter_async_context(self._watch)
                except OSError as error:
                    log.warning(
                        "links: no word from the kernel (%s): every link counts as fit", error
                    )
                    for n in range(len(self._links)):
                        self._selector.learn(n, Facts(True, True, True), 0)  # noqa: FBT003
                else:
                    self._changed()
                self._ready.set()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._managers.run(), name="managers")
                    group.create_task(self._tend(), name="links")
        finally:
            self._usage.write(self._usage.payload(reserve_bytes=0))

    def _changed(self) -> None:
        """The kernel said something of some interface."""
        now, interfaces = self._clock.boottime_ns(), self._watch.interfaces
        routed, interfaces.routed = interfaces.routed, set()
        for n, link in enumerate(self._links):
            name = link.interface or ""
            before = self._selector.state(n, now)
            lost = self._selector.learn(n, interfaces.facts(name), now)
            if name in routed:
                self._selector.stirred(n, now)
            after = self._selector.state(n, now)
            if before is not after:
                log.info("links: %s %s", link.name, WORDS.get(after, "is there"))
            if lost:
                self._lose(n)
        self._stir()

    def _lose(self, link: int) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
        elif self._connection is not None:
            (wire, listener), self._connection = self._connection, None
            wire.abort()
            listener.lost(self._gone(link))

    async def _tend(self) -> None:
        """What has its time: a look at a better link, a step of the ladder, the count of bytes."""
        while True:
            self._event.clear()
            now = self._clock.boottime_ns()
            probe = self._selector.probe(now)
            step = min(self._ladder.due(self._steps(), self.pace.silent_since_ns), default=None)
            if probe is not None and probe[1] <= now:
                await self._look(probe[0])
            elif step is not None and step[0] <= now:
                await self._step(step[1], step[2])
            elif self._usage.is_due:
                await _to_the_end(asyncio.to_thread(self._usage.write, self._usage.payload()))
            else:
                times = [at for at in (probe and probe[1], step and step[0]) if at is not None]
                await self._pause(min(times, default=None))

    async def _look(self, link: int) -> None:
        """At a better link; when it gets through, the connection moves there."""
        name = self._links[link].name
        trouble = await gets_through(next(self._nodes), self._dial(link))
        now = self._clock.boottime_ns()
        self._selector.probed(link, now, through=trouble is None)
        if trouble is not None:
            log.info("links: %s does not get through: %s", name, trouble)
        elif self._connection is not None and (self._selector.current or 0) > link:
            log.info("links: %s gets through again: back to it", name)
            (wire, listener), self._connection = self._connection, None
            self.pace.moving = True
            # In order, so that nobody is told that the hub is offline.
            await wire.close()
            if self._attempt is None and self._connection is None:
                listener.lost(UplinkError(Reason.LOST, f"moves to {name}"))

    def status(self) -> LinksStatus:
        """How they stand now."""
        now = self._clock.boottime_ns()
        self._usage.turn(month_of(self._clock.read()))
        rows = []
        for n, link in enumerate(self._links):
            months, answered_ns = self._usage.of(link.name), self.pace.answered_ns[n]
            used = months.used
            known = used.total_bytes < ALL
            row = LinkStatus(
                name=link.name,
                interface=link.interface,
                state=self._selector.state(n, now),
                in_use=n == self._selector.current,
                metered=self._metered(link),
                last_answer_age_s=None if answered_ns is None else (now - answered_ns) / NS_PER_S,
                round_trip_s=self.pace.round_trip_of(n) / NS_PER_S if answered_ns else None,
                month=month_text(months.month),
                bytes_month=used.total_bytes if known else None,
                waveform_bytes_month=used.waveform_bytes if known else None,
                waveform_budget_bytes=link.waveform_bytes_month,
                says=self._managers.words(link),
            )
            rows.append(row)
        return LinksStatus(tuple(rows), dict(self._ladder.taken))

    def _steps(self) -> Iterator[tuple[Step, int]]:
        for n, link in enumerate(self._links):
            if link.reactivate:
                yield Step.REACTIVATE, n
            if link.modem_reset:
                yield Step.MODEM_RESET, n

    async def _step(self, step: Step, link: int) -> None:
        """One of the last steps. Whatever comes of it, the next one of its kind has to wait."""
        now = self._clock.boottime_ns()
        row = self._links[link]
        silent_s = (now - self.pace.silent_since_ns) / NS_PER_S
        self._ladder.took(step, link, now)
        log.warning("links: no acknowledgement for %.0f s: %s of %s", silent_s, step, row.name)
        ask = self._managers.reactivate if step is Step.REACTIVATE else self._managers.reset_modem
        try:
            await ask(row.interface or "")
        except ManagerError as error:
            log.warning("links: %s of %s: %s", step, row.name, error)

    def _count(self, link: int, now_ns: int) -> None:
        """A new attempt is a step where the last connection failed."""
        last, self._last = self._last, link
        if not self.pace.trouble or last is None:
            return
        step = Step.NEW_SOCKET if last == link else Step.OTHER_LINK
        for taken in (Step.RESOLVE, step):
            self._ladder.took(taken, link, now_ns)
        log.info("links: %s over %s: %s", step, self._links[link].name, self.pace.trouble)

    # --- Small things ------------------------------------------------------------------------------------

    def _dial(self, link: int) -> Dial:
        return partial(self._dialler.dial, interface=self._links[link].interface)

    def _stir(self) -> None:
        self._event.set()
        self.wake()

    async def _pause(self, until_ns: int | None) -> None:
        seconds = None
        if until_ns is not None:
            seconds = max(0.0, (until_ns - self._clock.boottime_ns()) / NS_PER_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    def _gone(self, link: int) -> UplinkError:
        now = self._clock.boottime_ns()
        words = WORDS.get(self._selector.state(link, now), "was away")
        return UplinkError(Reason.UNREACHABLE, f"{self._links[link].name} {words}")

    def _why(self) -> str:
        now = self._clock.boottime_ns()
        states = (self._selector.state(n, now) for n in range(len(self._links)))
        rows = zip(self._links, states, strict=True)
        return ", ".join(f"{link.name} {WORDS.get(state, state.value)}" for link, state in rows)

    def _metered(self, link: Link) -> Metered:
        """AUTO where nobody knows."""
        return link.metered if link.metered is not Metered.AUTO else self._managers.metered(link)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """A thread cannot be cancelled: what it writes late must not come after the last word."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
