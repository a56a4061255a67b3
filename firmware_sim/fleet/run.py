"""`python -m firmware_sim fleet`: runs the hubs, shows how it goes, ends with a table and, with a receiver, a proof."""

import asyncio
import contextlib
import json
import resource
import ssl
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from firmware_sim.demo import programs
from firmware_sim.fleet.hub import Behaviour, SimulatedHub
from firmware_sim.fleet.measure import Measures, per_month
from firmware_sim.fleet.messages import Identity
from firmware_sim.fleet.proof import Proof, prove_file

LOOK_S = 3.0
"""Between two looks at what the receiver has."""
SPARE_FILES = 128
RECEIVER = """[receiver]
id = "fleet-receiver"
tenant = "{tenant}"
state_dir = "receiver"
output_file = "received.jsonl"

[broker]
host = "{host}"
other_hosts = [{others}]
port = {port}
{protocol}
[hubs]
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. `receiver`: the folder of a real receiver, which is started there."""

    hubs: int
    seconds: float
    behaviour: Behaviour
    tenant: str = "fleet"
    seed: int = 1
    drain: float = 60.0
    receiver: Path | None = None
    receiver_protocol: str = ""
    as_json: bool = False
    shows: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """What came out. `undelivered`: entries that the hubs still hold. CPU is that of this process alone."""

    options: Options
    seconds: float
    cpu_s: float
    measures: Measures
    undelivered: int
    expected: dict[tuple[str, str], int] = field(repr=False)
    proof: Proof | None = None

    @property
    def ok(self) -> bool:
        """Everything is where it should be."""
        return not self.undelivered and (self.proof is None or self.proof.ok)

    def figures(self) -> dict[str, object]:
        """For machines; times in seconds, bytes of MQTT without TLS, TCP and IP."""
        m, hubs = self.measures, self.options.hubs
        return {
            "hubs": hubs,
            "seconds": round(self.seconds, 3),
            "cpu_s": round(self.cpu_s, 3),
            "connects": m.connects.total(),
            "connects_per_s_most": max(m.connects.values(), default=0),
            "tries": m.tries.total(),
            "tries_per_s_most": max(m.tries.values(), default=0),
            "connack_s": _quantiles(m.connack.quantile_s(0.5), m.connack.quantile_s(0.99)),
            "lost": dict(m.lost),
            "publishes": m.publishes,
            "publishes_per_s": round(m.publishes / self.seconds, 1),
            "acknowledged": m.acknowledged,
            "refused": m.refused,
            "puback_s": _quantiles(m.puback.quantile_s(0.5), m.puback.quantile_s(0.99)),
            "receipts": m.receipts,
            "probes": m.probes,
            "bytes_sent": m.bytes_sent,
            "bytes_received": m.bytes_received,
            "bytes_sent_per_hub_and_month": round(per_month(m.bytes_sent, hubs, self.seconds)),
            "bytes_received_per_hub_and_month": round(
                per_month(m.bytes_received, hubs, self.seconds)
            ),
            "undelivered": self.undelivered,
            "proof": None if self.proof is None else self.proof.show(),
            "ok": self.ok,
        }


def _quantiles(half: float | None, most: float | None) -> dict[str, float | None]:
    return {"p50": half and round(half, 5), "p99": most and round(most, 5)}


def table(figures: dict[str, object]) -> str:
    """The figures, a line each."""
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items()) or "none"  # noqa: PLW2901 - the same value, readable
        lines.append(f"{name.replace('_', ' '):34}{value}")
    return "\n".join(lines)


class Fleet:
    """All hubs in this process."""

    def __init__(self, options: Options) -> None:
        self.measures = Measures()
        self._options = options
        behaviour, self._start_s = options.behaviour, asyncio.get_running_loop().time()
        self.identities = [
            Identity(number, options.tenant, options.seed) for number in range(options.hubs)
        ]
        self.hubs = [
            SimulatedHub(i, behaviour, self.measures, self._start_s) for i in self.identities
        ]

    @property
    def now_s(self) -> float:
        """Since the start: by these seconds connections are counted."""
        return asyncio.get_running_loop().time() - self._start_s

    async def run(self) -> Result:
        """For the time of the options, and until everything is delivered or the limit of the drain is over."""
        loop = asyncio.get_running_loop()
        began_s, cpu_s = loop.time(), time.process_time()
        tasks = [asyncio.create_task(hub.run()) for hub in self.hubs]
        shower = asyncio.create_task(self._show())
        try:
            await _first_failure(tasks, self._options.seconds)
            seconds, sent = loop.time() - began_s, time.process_time() - cpu_s
            for hub in self.hubs:
                hub.stop()
            await _first_failure(tasks, self._options.drain)
        finally:
            for task in (*tasks, shower):
                task.cancel()
            await asyncio.gather(*tasks, shower, return_exceptions=True)
        expected = {
            (hub.identity.id, stream): lane.mark.high_water
            for hub in self.hubs
            for stream, lane in hub.lanes.items()
        }
        undelivered = sum(
            lane.mark.high_water - lane.mark.released
            for hub in self.hubs
            for lane in hub.lanes.values()
        )
        return Result(self._options, seconds, sent, self.measures, undelivered, expected)

    async def _show(self) -> None:
        last = 0
        while self._options.shows:
            await asyncio.sleep(1.0)
            m = self.measures
            late = m.puback.quantile_s(0.99)
            sys.stderr.write(
                f"\r{m.connected:6} connected {m.connects.total():7} connects"
                f" {m.publishes - last:7} publishes/s  PUBACK p99 {1000 * (late or 0):8.1f} ms "
            )
            sys.stderr.flush()
            last = m.publishes


async def _first_failure(tasks: list[asyncio.Task[None]], limit_s: float) -> None:
    """Waits for all tasks or the time; raises what a task raised."""
    done, _ = await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


def receiver_config(options: Options, folder: Path) -> Path:
    """Writes a receiver's configuration that knows every hub of the fleet."""
    (host, port), *others = options.behaviour.brokers
    text = RECEIVER.format(
        tenant=options.tenant,
        host=host,
        others=", ".join(f'"{other}"' for other, _ in others),
        port=port,
        protocol=options.receiver_protocol,
    )
    for number in range(options.hubs):
        identity = Identity(number, options.tenant, options.seed)
        text += f'{identity.id} = "{identity.verify_key}"\n'
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "receiver.toml"
    target.write_text(text, encoding="ascii")
    return target


async def run(options: Options) -> Result:
    """The fleet, and with a folder for it the real receiver beside it, whose lines are the proof."""
    allow_files(options.hubs + SPARE_FILES)
    if options.receiver is None:
        return await Fleet(options).run()
    receiver = programs.receiver(receiver_config(options, options.receiver))
    await receiver.start()
    try:
        result = await Fleet(options).run()
        receiver.check()
        lines, loop = options.receiver / "received.jsonl", asyncio.get_running_loop()
        # On the broker's word it may hold what the receiver has not had yet.
        end_s = loop.time() + options.drain
        while (await asyncio.to_thread(prove_file, lines, result.expected)).missing:
            if loop.time() >= end_s:
                break
            await asyncio.sleep(LOOK_S)
    finally:
        await receiver.stop()
    proof = await asyncio.to_thread(prove_file, lines, result.expected)
    return Result(
        options,
        result.seconds,
        result.cpu_s,
        result.measures,
        result.undelivered,
        result.expected,
        proof,
    )


def allow_files(count: int) -> None:
    """A socket for each hub. Raises ProgramError when this machine does not allow so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
            return
        raise programs.ProgramError(f"open files: got a limit of {hard}, expected {count}")


def tls_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """One certificate for the whole fleet: what a broker's handshake costs does not depend on whose it is."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca))
    context.load_cert_chain(str(certificate), str(key))
    return context


def main(options: Options) -> int:
    """Runs, prints, and returns 0 when nothing is missing."""
    try:
        result = asyncio.run(run(options))
    except programs.ProgramError as error:
        sys.stderr.write(f"fleet: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    if options.shows:
        sys.stderr.write("\n")
    print(json.dumps(result.figures()) if options.as_json else table(result.figures()))
    return 0 if result.ok else 1
