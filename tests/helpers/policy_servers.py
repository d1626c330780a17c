"""Policy servers in threads of a test, and what they log."""

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from runtime_policies import metadata

from pixio_robot.deployment.artifact.metadata import KEYS, check_metadata
from pixio_robot.deployment.remote.server import PolicyServer

DESCRIBED = check_metadata({**dict.fromkeys(KEYS), **metadata()}, "this test")


@contextmanager
def serving(server: PolicyServer, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve in a thread of its own; gives host and port."""
    loop = asyncio.new_event_loop()
    address: list[str] = []
    up, down = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with server.listen("127.0.0.1", 0, tls) as listening:
            address.append(f"127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}")
            up.set()
            await down.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(timeout=60)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join(timeout=60)


def logged(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    """Return the log lines with one of some words, once there is one; none of all has a traceback."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert not [record for record in caplog.records if record.exc_info]
        lines = [record.getMessage() for record in caplog.records]
        if found := [line for line in lines if any(word in line for word in words)]:
            return found
        time.sleep(0.01)
    raise AssertionError(f"nothing of {words} in {lines}")
