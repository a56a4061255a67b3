"""Asks one hub for one thing over one connection: the hub's epoch, the command, the answers up to the last.

Nothing is kept for a hub that is away: its session ends with its connection, and a command is valid for minutes. So a
hub that is not online is not asked; who wants something of it asks again.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import StrEnum

from gateway.clock import Clock
from gateway.operator.settings import OperatorConfig
from gateway.uplink.command import (
    ID_BYTES,
    Asked,
    Command,
    LiveWaveform,
    Logging,
    Response,
    described,
)
from gateway.uplink.fields import PayloadError
from gateway.uplink.notice import HubStatus
from gateway.uplink.paho_wire import PahoWire
from gateway.uplink.signature import Doubt, VerifyKeys
from gateway.uplink.wire import Incoming, Outgoing, Session, UplinkError

VALID_S = 120.0
"""For how long a command holds unless said otherwise: both clocks may be wrong by a little."""
FIRST_S = 30.0
"""How long a hub that is online may take to say anything."""
MORE_S = 600.0
"""How long it may take from what was asked for to the last answer."""
RECENT = 256
"""Messages that may wait here. Answers are few; more is somebody else's doing."""


class Unanswered(StrEnum):
    """Why there is no answer, or no last one. Stable tokens."""

    UNKNOWN_HUB = "unknown_hub"
    """There is no verify key for it here."""
    NO_STATUS = "no_status"
    """The broker has no status that this hub signed."""
    OFFLINE = "offline"
    CONNECTION = "connection"
    SILENT = "silent"
    """It said nothing in time. Whether it did what was asked, its audit stream tells."""


class RequestError(Exception):
    """There is no last answer; the text says why, and what to do."""

    def __init__(self, reason: Unanswered, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.text = text


class _Ears:
    """What came over the connection, in order."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[Incoming | RequestError] = asyncio.Queue(RECENT)

    def answered(self, message_id: int, refusal: str | None) -> None:
        """The broker has the command, or will not have it."""
        del message_id
        if refusal is not None:
            self._put(RequestError(Unanswered.CONNECTION, f"the broker refused it: {refusal}"))

    def lost(self, error: UplinkError) -> None:
        """The connection is gone."""
        self._put(RequestError(Unanswered.CONNECTION, str(error)))

    def arrived(self, message: Incoming) -> None:
        """A status or an answer."""
        self._put(message)

    def _put(self, item: Incoming | RequestError) -> None:
        if self._came.full():
            self._came.get_nowait()
        self._came.put_nowait(item)

    async def next(self, limit_s: float, error: RequestError) -> Incoming:
        """Raises the error when nothing came within the limit."""
        try:
            async with asyncio.timeout(limit_s):
                item = await self._came.get()
        except TimeoutError:
            raise error from None
        if isinstance(item, RequestError):
            raise item
        return item


class Operator:
    """Somebody who asks hubs. One instance may ask many, one after the other or at once."""

    def __init__(
        self, config: OperatorConfig, sign: Callable[[bytes], bytes], clock: Clock
    ) -> None:
        """Takes the operator's signature, which the hubs know by its verify key."""
        self._config = config
        self._sign = sign
        self._clock = clock
        self._keys = VerifyKeys(config.hubs)

    async def ask(
        self,
        hub: str,
        asked: Asked,
        told: Callable[[Response], None] = lambda _response: None,
        *,
        valid_s: float = VALID_S,
        first_s: float = FIRST_S,
        more_s: float = MORE_S,
    ) -> Response:
        """The last answer; `told` gets each one as it comes, the last too.

        Args:
            hub: its name.
            asked: what to ask for.
            told: called on the event loop.
            valid_s: for how long the command holds.
            first_s: how long the hub's status, and then its first answer, may take.
            more_s: how long the last answer may take, beyond the minutes that were asked for.

        Raises:
            RequestError: there is no last answer.
        """
        if hub not in self._config.hubs:
            known = ", ".join(sorted(self._config.hubs))
            text = f"hub: got {hub!r}, expected one with a verify key in [hubs]: {known}"
            raise RequestError(Unanswered.UNKNOWN_HUB, text)
        ears, config = _Ears(), self._config
        status_topic = f"wardlink/1/{config.tenant}/{hub}/status"
        answers_topic = Response.topic(config.tenant, hub, config.id)
        client_id = f"wardlink-operator-{config.tenant}-{config.id}-{secrets.token_hex(4)}"
        session = Session(client_id, self._sign, None, (status_topic, answers_topic))
        try:
            wire = await PahoWire.connect(config.broker, session, ears)
        except UplinkError as error:
            raise RequestError(Unanswered.CONNECTION, str(error)) from error
        try:
            epoch = await self._epoch(hub, ears, status_topic, first_s)
            command = self._command(hub, epoch, asked, valid_s)
            topic = Command.topic(config.tenant, hub, config.id)
            try:
                wire.publish(Outgoing(topic, command.encode()))
            except UplinkError as error:
                raise RequestError(Unanswered.CONNECTION, str(error)) from error
            limit_s = more_s
            if isinstance(asked, LiveWaveform | Logging):
                limit_s += 60.0 * asked.minutes
            async with aclosing(self._answers(command, ears, first_s, limit_s)) as answers:
                async for response in answers:
                    told(response)
                    if response.answer.is_last:
                        return response
            raise AssertionError("the answers end with the last one or with an error")
        finally:
            await wire.close()

    async def _epoch(self, hub: str, ears: _Ears, topic: str, limit_s: float) -> str:
        """Of the journal that the hub has now. The broker keeps the status, so it comes at once."""
        missing = RequestError(
            Unanswered.NO_STATUS,
            f"{topic}: got no status that {hub} signed, expected a retained one; was it ever online,"
            " and is its verify key right?",
        )
        end_ns = self._clock.boottime_ns() + int(limit_s * 1e9)
        while True:
            left_s = max(0.0, (end_ns - self._clock.boottime_ns()) / 1e9)
            message = await ears.next(left_s, missing)
            said = self._said(hub, message) if message.topic == topic else None
            if said is None:
                continue
            try:
                status = HubStatus.decode(said)
            except PayloadError:
                continue
            if not status.online:
                text = f"hub {hub} is not online; nothing is kept for it: ask again when it is"
                raise RequestError(Unanswered.OFFLINE, text)
            return status.epoch

    def _said(self, hub: str, message: Incoming) -> bytes | None:
        opened = self._keys.opened(hub, message)
        return None if isinstance(opened, Doubt) else opened

    def _command(self, hub: str, epoch: str, asked: Asked, valid_s: float) -> Command:
        issued_ns = self._clock.read().wall_ns
        until_ns = issued_ns + int(valid_s * 1e9)
        kind, _ = described(asked)
        command_id = secrets.token_hex(ID_BYTES)
        return Command(command_id, hub, epoch, self._config.id, issued_ns, until_ns, kind, asked)

    async def _answers(
        self, command: Command, ears: _Ears, first_s: float, more_s: float
    ) -> AsyncGenerator[Response, None]:
        """Every answer to this command that its hub signed."""
        silent = f"hub {command.hub} gave no {{}} answer to {command.id} within {{:g}} s"
        limit_s, which, said_s = first_s, "first", first_s
        end_ns = self._clock.boottime_ns() + int(limit_s * 1e9)
        while True:
            left_s = max(0.0, (end_ns - self._clock.boottime_ns()) / 1e9)
            error = RequestError(Unanswered.SILENT, silent.format(which, said_s))
            message = await ears.next(left_s, error)
            said = self._said(command.hub, message)
            try:
                response = Response.decode(said) if said is not None else None
            except PayloadError:
                continue
            if response is None or response.id != command.id:
                continue
            if which == "first":
                which, said_s = "last", more_s
                end_ns = self._clock.boottime_ns() + int(more_s * 1e9)
            yield response
