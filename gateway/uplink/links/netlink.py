"""What the kernel says of its interfaces over rtnetlink (RFC 3549; linux/rtnetlink.h). Pure: bytes in, state out.

Reading it takes no capability, and costs nothing while nothing changes.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE."""
_HEAD = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=8BI")
_U32 = struct.Struct("=I")
DONE = 3
NEWLINK, DELLINK, GETLINK, NEWADDR, DELADDR, GETADDR, NEWROUTE = 16, 17, 18, 20, 21, 22, 24
REQUEST_DUMP = 0x1 | 0x300
IFLA_IFNAME, IFA_ADDRESS, IFA_FLAGS, RTA_OIF = 3, 1, 8, 4
IFF_RUNNING = 0x40
"""Up, with a carrier, and not dormant: RFC 2863 operational status up, or unknown as modems have it. Where the carrier
went, it follows up to a second later."""
IFF_LOWER_UP = 0x1_0000
"""There is a carrier at this moment."""
CARRIES = IFF_RUNNING | IFF_LOWER_UP
SCOPE_LINK = 253
UNFIT = 0x08 | 0x40
"""IFA_F_DADFAILED, IFA_F_TENTATIVE: nobody may send from it (yet)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """An interface, as the kernel has it. An address of the link alone (fe80::, 169.254) is none."""

    present: bool = False
    carrier: bool = False
    address: bool = False

    @property
    def fit(self) -> bool:
        """Whether a connection can be tried."""
        return self.present and self.carrier and self.address


class Interfaces:
    """The table of interfaces, kept from what a socket subscribed to `GROUPS` gives."""

    def __init__(self) -> None:
        self._links: dict[int, tuple[str, bool]] = {}
        self._addresses: set[tuple[int, bytes]] = set()
        self._shown: dict[str, Facts] = {}
        self._asked = 0
        self.routed: set[str] = set()
        """Names that got a default route; whoever reads them empties the set."""

    @property
    def whole(self) -> bool:
        """Whether both dumps were read."""
        return self._asked == 0

    def facts(self, name: str) -> Facts:
        """What was last known as a whole: while the table is read anew, what it said before."""
        return self._shown.get(name, Facts())

    def begin(self) -> bytes:
        """Reads everything anew: at the start, and when the kernel had to drop messages. Returns what to send."""
        self._links.clear()
        self._addresses.clear()
        self._asked = GETLINK
        return _request(GETLINK)

    def feed(self, data: bytes) -> bytes:
        """What one read of the socket gave. Returns what to send: the kernel takes one dump at a time."""
        answer = b""
        for kind, body in _messages(data):
            if kind == DONE and self._asked == GETLINK:
                self._asked, answer = GETADDR, _request(GETADDR)
            elif kind == DONE:
                self._asked = 0
            else:
                self._take(kind, body)
        if self.whole:
            held = {index for index, _ in self._addresses}
            self._shown = {
                name: Facts(present=True, carrier=running, address=index in held)
                for index, (name, running) in self._links.items()
            }
        return answer

    def _take(self, kind: int, body: bytes) -> None:
        if kind in {NEWLINK, DELLINK} and len(body) >= _IFINFO.size:
            _family, _type, index, flags, _change = _IFINFO.unpack_from(body)
            name = _attributes(body[_IFINFO.size :]).get(IFLA_IFNAME, b"").rstrip(b"\0").decode()
            if kind == NEWLINK and name:
                self._links[index] = (name, flags & CARRIES == CARRIES)
            elif kind == DELLINK:
                self._links.pop(index, None)
                self._addresses = {row for row in self._addresses if row[0] != index}
        elif kind in {NEWADDR, DELADDR} and len(body) >= _IFADDR.size:
            _family, _prefix, flags, scope, index = _IFADDR.unpack_from(body)
            found = _attributes(body[_IFADDR.size :])
            if len(found.get(IFA_FLAGS, b"")) == _U32.size:
                (flags,) = _U32.unpack(found[IFA_FLAGS])
            row = (index, found.get(IFA_ADDRESS, b""))
            if kind == NEWADDR and scope != SCOPE_LINK and not flags & UNFIT:
                self._addresses.add(row)
            else:
                self._addresses.discard(row)
        elif kind == NEWROUTE and len(body) >= _ROUTE.size:
            prefix = _ROUTE.unpack_from(body)[1]
            out = _attributes(body[_ROUTE.size :]).get(RTA_OIF, b"")
            if prefix == 0 and len(out) == _U32.size:
                (index,) = _U32.unpack(out)
                if index in self._links:
                    self.routed.add(self._links[index][0])


def _request(kind: int) -> bytes:
    body = _IFINFO.pack(0, 0, 0, 0, 0)
    return _HEAD.pack(_HEAD.size + len(body), kind, REQUEST_DUMP, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEAD.size <= len(data):
        length, kind, _flags, _sequence, _port = _HEAD.unpack_from(data, at)
        if not _HEAD.size <= length <= len(data) - at:
            return
        yield kind, data[at + _HEAD.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            break
        found[kind & 0x3FFF] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found
