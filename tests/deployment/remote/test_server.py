"""A policy server: the same actions as here, and no harm from whatever is sent to it."""

import asyncio
import json
import logging
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policy_servers import DESCRIBED, logged, serving
from runtime_policies import CAMERA, Counting, Gated, observation
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.remote.client import RemoteError, RemotePolicy
from pixio_robot.deployment.remote.protocol import decode, encode
from pixio_robot.deployment.remote.server import PolicyServer, tls_context
from pixio_robot.deployment.runtime import Controller, LockStepClock

HELLO = encode("hello", protocol=2, schema=DESCRIBED["schema"])
REQUEST = {key: value[None] for key, value in observation(3).values.items()}


@pytest.fixture
def policy() -> Counting:
    return Counting(DESCRIBED)


@pytest.fixture
def address(policy: Counting) -> Iterator[str]:
    with serving(PolicyServer(policy)) as address:
        yield address


def health(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{address}/health", timeout=60) as response:
        assert response.headers["Content-Type"] == "application/json"
        return json.load(response)


def plain_connection(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_a_served_policy_acts_like_one_here(policy: Counting, address: str) -> None:
    with RemotePolicy(f"ws://{address}") as remote:
        there = Controller(remote, "synchronous", LockStepClock())
        here = Controller(Counting(DESCRIBED), "synchronous", LockStepClock())
        for step in range(8):
            frames = np.random.default_rng(step).integers(0, 256, (48, 64, 3), np.uint8)
            seen = observation(step, {CAMERA: frames})
            np.testing.assert_array_equal(there.act(seen).action, here.act(seen).action)
            np.testing.assert_array_equal(policy.seen[-1][CAMERA][0] if step % 3 == 0 else frames, frames)
        assert remote.metadata == DESCRIBED
        assert all(array.flags.writeable for array in policy.seen[-1].values())  # or torch warns of each
    assert health(address)["status"] == "ok" and health(address)["answered"] == 3


def test_random_bytes_change_nothing(policy: Counting, address: str, caplog: pytest.LogCaptureFixture) -> None:
    """1,000 byte strings: to the port itself, instead of a hello, and instead of a request."""
    generator = np.random.default_rng(0)
    with RemotePolicy(f"ws://{address}") as remote, caplog.at_level(logging.WARNING):
        for number in range(1000):
            junk = generator.bytes(int(generator.integers(1, 300)))
            if number % 4 == 0:
                with plain_connection(address) as raw:
                    raw.sendall(junk)
                continue
            with connect(f"ws://{address}/policy", compression=None) as client:
                if number % 4 == 1:
                    client.send(HELLO)
                    decode(client.recv(timeout=60), "welcome")
                if number % 4 == 2:
                    junk = HELLO[: len(junk) % len(HELLO)] + junk
                client.send(junk)
                reason = decode(client.recv(timeout=60), "refused")["reason"]
                assert reason.startswith("malformed message: ")
        assert not policy.seen
        np.testing.assert_array_equal(remote.predict(REQUEST, 5, seed=11), policy.chunk(5))
        assert policy.seeds == [11]
    assert len(logged(caplog, "malformed message")) == 750
    assert len(logged(caplog, "refused ")) == len(caplog.records) == 1000


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("observation.state", None, "but the artifact reads"),
        ("extra", np.zeros(1, np.float32), "but the artifact reads"),
        (CAMERA, np.zeros((1, 24, 32, 3), np.float32), "reads uint8 frames"),
        (CAMERA, np.zeros((1, 24, 24, 3), np.uint8), "24×24 px"),
        (CAMERA, np.zeros((2, 24, 32, 3), np.uint8), "a batch of 1"),
        (CAMERA, np.zeros((), np.uint8), "a batch of 1"),
        (CAMERA, np.zeros((1, 0, 0, 3), np.uint8), "0×0 px"),
        (CAMERA, 7, "a batch of 1"),
        ("observation.state", np.zeros((1, 3), np.float32), "float32 (3,)"),
        ("observation.state", np.full((1, 2), np.nan, np.float32), "not finite"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_and_the_connection_stays(
    policy: Counting, address: str, key: str, value: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    request = {name: array for name, array in {**REQUEST, key: value}.items() if array is not None}
    with RemotePolicy(f"ws://{address}") as remote:
        with pytest.raises(RemoteError) as caught:
            remote.predict(request, 0)
        assert message in str(caught.value) and not policy.seen
        assert logged(caplog, message)
        connection = remote._connection
        assert remote.predict(REQUEST, 0).shape == (6, 2)
        assert remote._connection is connection


def test_other_versions_and_wrong_tokens_are_refused(policy: Counting) -> None:
    with serving(PolicyServer(policy, token="secret")) as address:
        for token in (None, "wrong", "secre"):
            with pytest.raises(UserError, match="401 .a token is needed"):
                RemotePolicy(f"ws://{address}", token)
        assert RemotePolicy(f"ws://{address}", "secret").predict(REQUEST, 0).shape == (6, 2)
        for hello, what in ({"protocol": 1, "schema": 3}, "protocol 1"), ({"protocol": 2, "schema": 9}, "schema 9"):
            headers = {"Authorization": "Bearer secret"}
            with connect(f"ws://{address}/policy", additional_headers=headers) as client:
                client.send(encode("hello", **hello))
                assert what in decode(client.recv(timeout=60), "refused")["reason"]
                with pytest.raises(ConnectionClosed):
                    client.recv(timeout=60)
    for server in ("ws://robots.example:1", "ws://localhost.robots.example:1"):
        with pytest.raises(UserError, match="would send the token in the clear"):
            RemotePolicy(server, "secret")
    with pytest.raises(UserError, match="No policy from"):
        RemotePolicy(f"ws://{address}")
    with pytest.raises(UserError, match="give a token"):
        asyncio.run(PolicyServer(policy).listen("0.0.0.0", 0).__aenter__())


def test_tls(tmp_path: Path, policy: Counting) -> None:
    certificate, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-keyout", key, "-out", certificate, "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    with serving(PolicyServer(policy, token="secret"), tls_context(certificate, key)) as address:
        with RemotePolicy(f"wss://{address}", "secret", certificate) as remote:
            np.testing.assert_array_equal(remote.predict(REQUEST, 1), policy.chunk(1))
        with pytest.raises(UserError, match="CERTIFICATE_VERIFY_FAILED"):
            RemotePolicy(f"wss://{address}", "secret")
    with pytest.raises(UserError, match="Cannot use certificate"):
        tls_context(key, certificate)


def test_the_queue_is_bounded_and_slow_clients_hinder_nobody() -> None:
    policy = Gated(DESCRIBED)
    with serving(PolicyServer(policy, connections=4, waiting=2, patience=1.0)) as address:
        silent = connect(f"ws://{address}/policy")  # never says hello
        clients = [RemotePolicy(f"ws://{address}") for _ in range(3)]
        with pytest.raises(UserError, match="503 .too many clients"):
            RemotePolicy(f"ws://{address}")
        asked = [threading.Thread(target=client.predict, args=(REQUEST, 0), daemon=True) for client in clients[:2]]
        for thread in asked:
            thread.start()
        assert policy.begun.acquire(timeout=60)
        while health(address)["waiting"] < 2:
            pass
        with pytest.raises(RemoteError, match="busy: 2 requests wait"):
            clients[2].predict(REQUEST, 0)
        policy.gate.release(3)
        for thread in asked:
            thread.join(timeout=60)
        assert clients[2].predict(REQUEST, 1).shape == (6, 2)
        with pytest.raises(ConnectionClosed):  # whoever is silent for longer than the patience is dropped
            silent.recv(timeout=60)


def upgrade(raw: socket.socket) -> None:
    """Open a websocket by hand: a library would read in a thread of its own."""
    raw.sendall(
        b"GET /policy HTTP/1.1\r\nHost: robot\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert raw.recv(4096).startswith(b"HTTP/1.1 101 ")


def frame(message: bytes) -> bytes:
    """Return a masked binary frame (RFC 6455); the mask is zero."""
    return bytes([0x82, 0x80 | 127]) + len(message).to_bytes(8, "big") + bytes(4) + message


def test_a_client_that_does_not_read_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """Its answers, of 8 MB each, fill what lies between; the policy is asked no more for it, and others go on."""
    policy = Counting(DESCRIBED, lambda number: np.zeros((1_000_000, 2), np.float32) + number)
    with serving(PolicyServer(policy, patience=0.5)) as address, caplog.at_level(logging.INFO):
        with plain_connection(address) as raw:
            upgrade(raw)
            request = encode("predict", id=1, chunk=0, seed=0, observation=REQUEST)
            raw.sendall(frame(HELLO) + 20 * frame(request))  # and reads nothing, pings included
            (line,) = logged(caplog, "dropped", "lost")
            assert "took longer than 0.5 s" in line or "keepalive" in line
        asked = len(policy.seen)
        assert asked < 20
        with connect(f"ws://{address}/policy", compression=None, max_size=None) as client:
            client.send(HELLO)
            decode(client.recv(timeout=60), "welcome")
            client.send(encode("predict", id=7, chunk=3, seed=0, observation=REQUEST))
            answer = decode(client.recv(timeout=60), "actions")
        assert answer["id"] == 7 and (answer["actions"] == 3).all()
        assert len(policy.seen) == asked + 1


@pytest.mark.parametrize("where", ["in the handshake", "in a message", "during inference"])
def test_a_client_that_is_gone_or_stuck_leaves_nothing_behind(where: str, caplog: pytest.LogCaptureFixture) -> None:
    policy = Gated(DESCRIBED)
    request = frame(encode("predict", id=1, chunk=0, seed=0, observation=REQUEST))
    with serving(PolicyServer(policy, patience=0.5)) as address, caplog.at_level(logging.INFO):
        raw = plain_connection(address)
        if where == "in the handshake":
            raw.sendall(b"GET /policy HTTP/1.1\r\nHost: ")
            assert not raw.recv(4096)  # hung up on
            assert len(logged(caplog, "no websocket handshake (no whole request came)")) == 1
        else:
            upgrade(raw)
            raw.sendall(frame(HELLO) + (request[:-100] if where == "in a message" else request))
            if where == "during inference":
                assert policy.begun.acquire(timeout=60)
                raw.close()
                policy.gate.release()
            assert len(logged(caplog, "dropped", "lost")) == 1
        raw.close()
        while (state := health(address))["connections"] or state["waiting"]:
            pass
        policy.gate.release()
        with RemotePolicy(f"ws://{address}") as remote:
            assert remote.predict(REQUEST, 1).shape == (6, 2)
        assert logged(caplog, "connected")
    assert len(policy.seen) == (2 if where == "during inference" else 1)
