"""The modelled 4G link as the bench sees it."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.gateway.uplink.bench import free_port

ROUND_TRIP_MS, MBIT_S = 80, 5
LINK_BYTES_S = MBIT_S * 125_000
SETTLE_S, WINDOW_S = 3.0, 10.0
"""Connecting and slow start are not counted: the link is watched after it has settled."""


class Link:
    """The modelled link as a process of its own, and the bytes that it counted."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        command = [sys.executable, str(Path(__file__).with_name("link_model.py"))]
        command += [str(self.port), str(target)]
        command += ["--round-trip-ms", str(ROUND_TRIP_MS), "--mbit-s", str(MBIT_S)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - our own file
        self.samples: list[tuple[float, int, int]] = []
        threading.Thread(target=self._listen, daemon=True).start()
        while not self.samples:
            time.sleep(0.01)

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        for line in self._process.stdout:
            since_s, up, down = json.loads(line)
            self.samples.append((since_s, up, down))

    def wait(self, since_s: float, sender: "subprocess.Popen[bytes]") -> None:
        """Until so long after the first byte. Whoever ends before it sent one will not be waited for."""
        while self.samples[-1][0] < since_s:
            if sender.poll() is not None and not self.samples[-1][1]:
                sys.exit(f"{sender.args!r} ended before it sent anything")
            time.sleep(0.02)

    def use(self) -> float:
        """Share of the link upwards while it was watched."""
        watched = [s for s in self.samples if SETTLE_S <= s[0] <= SETTLE_S + WINDOW_S]
        (begin_s, begin, _), (end_s, end, _) = watched[0], watched[-1]
        return (end - begin) / (end_s - begin_s) / LINK_BYTES_S

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def link(target: int) -> Iterator[Link]:
    """A link to a port."""
    model = Link(target)
    try:
        yield model
    finally:
        model.close()
