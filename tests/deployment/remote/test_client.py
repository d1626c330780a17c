"""The client of a policy server: no harm from whatever is answered."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from policy_servers import DESCRIBED, logged, serving
from runtime_policies import CAMERA, Counting, metadata, observation
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_with

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.remote.client import RemotePolicy
from pixio_robot.deployment.remote.protocol import encode
from pixio_robot.deployment.remote.server import PolicyServer
from pixio_robot.deployment.runtime import Controller, HoldReason, LockStepClock


@pytest.fixture
def policy() -> Counting:
    return Counting(DESCRIBED)


@contextmanager
def pretending(answer: Callable[[ServerConnection], None], described: dict[str, Any] = DESCRIBED) -> Iterator[str]:
    """Serve a welcome, the right one unless told otherwise, and then whatever."""

    def handle(connection: ServerConnection) -> None:
        connection.recv()
        connection.send(encode("welcome", metadata=described))
        for _ in connection:
            answer(connection)

    with serve_with(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(timeout=60)


def test_a_client_holds_whatever_a_server_answers(caplog: pytest.LogCaptureFixture) -> None:
    generator = np.random.default_rng(1)
    actions = Counting.chunk(0)
    answers: list[Any] = [
        encode("actions", id=99, actions=actions),  # to another request
        encode("actions", id=1, actions=actions[:3]),
        encode("actions", id=1, actions=actions.astype(np.uint8)),
        encode("actions", id=1, actions=np.full_like(actions, np.nan)),
        encode("welcome", metadata=DESCRIBED),
        "text",
        *(generator.bytes(int(generator.integers(1, 200))) for _ in range(1000)),
    ]

    def answer(connection: ServerConnection) -> None:
        if answers:
            connection.send(answers.pop(0))
        else:
            connection.close()

    with pretending(answer) as server, RemotePolicy(server) as remote:
        for mode in ("synchronous", "ensemble"):
            controller = Controller(remote, mode, LockStepClock())
            for step in range(504):
                command = controller.act(observation(step))
                assert command.action is None and command.held in (HoldReason.FAILED_INFERENCE, HoldReason.BAD_ACTION)
    assert logged(caplog, "policy failed")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"schema": 4}, "has schema 4, this version reads 3: update pixio-robot"),
        ({"cameras": [CAMERA]}, "cameras[0] is 'observation.images.front', expected a mapping"),
        ({"state__size": "2"}, "state.size is '2', expected a whole number of at least 1"),
        ({"action__minimum": [-1.0]}, "action.minimum is [-1.0], expected one entry for each of 2 numbers"),
        ({"action__maximum": [1.0, float("nan")]}, "action.maximum is [1.0, nan], expected a list of finite numbers"),
        ({"action_horizon": None}, "action_horizon is missing"),
    ],
)
def test_a_client_takes_no_broken_metadata(changes: dict[str, Any], what: str) -> None:
    described = {**DESCRIBED, **metadata(**changes)}
    with pretending(lambda connection: None, described) as server, pytest.raises(UserError, match=re.escape(what)):
        RemotePolicy(server)


def test_a_server_that_says_nothing_holds_the_robot(caplog: pytest.LogCaptureFixture) -> None:
    """An answer is waited for as long as its actions would reach: 6 at 10 Hz."""
    quiet = threading.Event()
    with pretending(lambda connection: bool(quiet.wait(timeout=60)) and None) as server:
        with RemotePolicy(server) as remote:
            command = Controller(remote, "synchronous", LockStepClock()).act(observation(0))
        quiet.set()
    assert command.action is None and command.held is HoldReason.FAILED_INFERENCE
    (line,) = logged(caplog, "holds")
    assert "timed out" in line or "TimeoutError" in line


def test_a_broken_connection_holds_and_is_made_anew(policy: Counting) -> None:
    with serving(PolicyServer(policy)) as address:
        remote = RemotePolicy(f"ws://{address}")
        controller = Controller(remote, "ensemble", LockStepClock())
        assert controller.act(observation(0)).held is None
        assert remote._connection is not None
        remote._connection.socket.shutdown(socket.SHUT_RDWR)
        assert controller.act(observation(1)).held is HoldReason.FAILED_INFERENCE
        assert controller.act(observation(2)).held is None
    assert controller.act(observation(3)).held is HoldReason.FAILED_INFERENCE  # nobody is there any more
    remote.close()
