import asyncio
import socket
from pathlib import Path

import pytest

from gateway import status
from gateway.notify import Notifier


def test_answers_with_the_state_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "run" / status.ACQUIRE
    counted = {"asked": 0}

    def snapshot() -> dict[str, object]:
        counted["asked"] += 1
        return dict(counted)

    async def main() -> list[dict[str, object]]:
        async with status.serve(path, snapshot):
            return [await asyncio.to_thread(status.fetch, path) for _ in range(2)]

    assert asyncio.run(main()) == [{"asked": 1}, {"asked": 2}]
    assert not path.exists()


def test_a_socket_left_behind_by_a_killed_hub_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / status.ACQUIRE
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with pytest.raises(status.NoStatus, match="nobody answers"):
        status.fetch(path)

    async def main() -> None:
        async with status.serve(path, lambda: {"ok": True}):
            assert await asyncio.to_thread(status.fetch, path) == {"ok": True}

    asyncio.run(main())


def test_both_halves_are_one_document_and_a_silent_one_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with status.serve(tmp_path / status.ACQUIRE, lambda: {"hub": "a", "devices": []}):
            alone = await asyncio.to_thread(status.fetch_all, tmp_path)
            assert set(alone) == {"hub", "devices", "silent"}
            assert "uplink.sock: nobody answers" in alone["silent"]["uplink"]  # type: ignore[index]
            async with status.serve(tmp_path / status.UPLINK, lambda: {"hub": "u", "uplink": {}}):
                both = await asyncio.to_thread(status.fetch_all, tmp_path)
        assert both == {"hub": "a", "devices": [], "uplink": {}, "silent": {}}
        with pytest.raises(status.NoStatus, match=r"is `wardlink run` running\?"):
            status.fetch_all(tmp_path)

    asyncio.run(main())


def test_only_owner_and_group_may_ask(tmp_path: Path) -> None:
    path = tmp_path / status.ACQUIRE

    async def main() -> None:
        async with status.serve(path, dict):
            assert path.stat().st_mode & 0o777 == 0o660

    asyncio.run(main())


@pytest.mark.parametrize("abstract", [False, True])
def test_tells_the_service_manager(tmp_path: Path, abstract: bool) -> None:  # noqa: FBT001 - a parameter of the test
    address = f"@wardlink-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if abstract else address)
        notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
        notifier.send("READY=1")
        assert manager.recv(100) == b"READY=1"
        assert notifier.watchdog_s == 15.0


def test_is_silent_without_a_service_manager() -> None:
    notifier = Notifier({})
    notifier.send("READY=1")
    assert notifier.watchdog_s is None
