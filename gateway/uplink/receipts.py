"""Reads receipts: only those that a configured receiver signed, and that speak of this journal."""

import logging

from gateway.config.hub import Hub
from gateway.uplink.fields import PayloadError
from gateway.uplink.receipt import Receipt
from gateway.uplink.signature import Doubt, VerifyKeys
from gateway.uplink.wire import Incoming

log = logging.getLogger(__name__)


class Receipts:
    """What may give this hub's journal free."""

    def __init__(self, hub: Hub, epoch: str, keys: VerifyKeys) -> None:
        self._hub = hub
        self._epoch = epoch
        self._keys = keys

    @staticmethod
    def filter(hub: Hub) -> str:
        """The topic filter of this hub's receipts."""
        return Receipt.topic(hub.tenant, hub.id, "+")

    def read(self, message: Incoming) -> Receipt | None:
        """The receipt, or None when it is not one for this journal by one who may give it."""
        name = message.topic.rpartition("/")[2]
        payload = self._keys.opened(name, message)
        if isinstance(payload, Doubt):
            log.warning("uplink: receipt refused: %s", payload)
            return None
        try:
            receipt = Receipt.decode(payload)
        except PayloadError as error:
            log.warning("uplink: receipt refused: %s", error)
            return None
        ours = (receipt.hub, receipt.receiver, receipt.epoch) == (self._hub.id, name, self._epoch)
        return receipt if ours else None
