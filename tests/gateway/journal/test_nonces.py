"""A nonce used twice under one key tells both plaintexts apart and gives the key of the tags away: it never happens."""

import errno
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.journal import segment
from gateway.journal.algorithms import AEADS
from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from tests.gateway.journal.builders import MAKERS, open_journal
from tests.gateway.journal.simulated_disk import PowerCutError, SimulatedDisk

PROCESSES = 20
COMMITS = 25


class Witness:
    """Encrypts, and notes under which key and with which nonce."""

    used: list[tuple[bytes, bytes]]

    def __init__(self, key: bytes) -> None:
        self._key, self._aead = key, AESGCM(key)

    def encrypt_into(self, nonce: bytes, data: bytes, associated: bytes, into: bytearray) -> int:
        self.used.append((self._key, nonce))
        return self._aead.encrypt_into(nonce, data, associated, into)

    def decrypt(self, nonce: bytes, data: bytes, associated: bytes) -> bytes:
        return self._aead.decrypt(nonce, data, associated)


@pytest.mark.parametrize("seed", range(3))
def test_no_nonce_comes_twice_and_no_key_outlives_its_process(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "AEADS", dict.fromkeys(AEADS, Witness))
    monkeypatch.setattr(Witness, "used", [], raising=False)
    random, disk = Random(seed), SimulatedDisk()
    earlier: set[bytes] = set()

    def sometimes(operation: str, _path: Path) -> OSError | None:
        failing = operation in {"pwrite", "datasync", "rename"} and random.random() < 0.02
        return OSError(errno.EIO, "input/output error") if failing else None

    for process in range(PROCESSES):
        journal = open_journal(disk, boot_id=f"boot-{process // 2}")
        disk.fault = sometimes
        begin = len(Witness.used)
        disk.steps_left = random.randrange(40, 400)
        try:
            for number in range(COMMITS):
                stream = random.choice(list(Stream))
                journal.append("device", MAKERS[stream](number))
                try:
                    journal.commit()
                    journal.acknowledge(stream, journal.high_water(stream) - random.randrange(5))
                except JournalError:
                    pass  # the disk: what was not durable is tried again
        except PowerCutError:
            pass
        disk.fault = lambda _operation, _path: None
        disk.crash(random)
        keys = {key for key, _ in Witness.used[begin:]}
        assert not keys & earlier, "a key of an earlier process"
        earlier |= keys
    assert len(Witness.used) > PROCESSES * 4
    assert len(earlier) > PROCESSES
    assert len(set(Witness.used)) == len(Witness.used), "a nonce twice"
