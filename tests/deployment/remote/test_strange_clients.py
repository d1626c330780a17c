"""Clients that are not ours: those that mean harm hinder nobody, those of other makes are served."""

import contextlib
import importlib.util
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
from policy_servers import DESCRIBED, logged, serving
from runtime_policies import CAMERA, Counting, observation
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import pixio_robot
from pixio_robot.common.errors import UserError
from pixio_robot.deployment.remote.client import RemotePolicy
from pixio_robot.deployment.remote.openpi import pack, unpack_observation
from pixio_robot.deployment.remote.protocol import MalformedMessageError, decode, encode, read_token
from pixio_robot.deployment.remote.server import PolicyServer

HELLO = encode("hello", protocol=2, schema=DESCRIBED["schema"])
REQUEST = {key: value[None] for key, value in observation(3).values.items()}
README = Path(pixio_robot.__file__).parent / "deployment/remote/README.md"


def greeted(address: str) -> ClientConnection:
    client = connect(f"ws://{address}/policy", compression=None)
    client.send(HELLO)
    decode(client.recv(timeout=60), "welcome")
    return client


@pytest.mark.parametrize(
    "server",
    [
        "ws://localhost.evil.example",
        "ws://127.0.0.1.evil.example:80",
        "ws://localhost@evil.example",
        "ws://evil#localhost",
    ],
)
def test_the_token_never_leaves_in_the_clear(server: str) -> None:
    with pytest.raises(UserError, match="would send the token in the clear"):
        RemotePolicy(server, token="secret")


@pytest.mark.parametrize(
    "server", ["ws://127.0.0.1:99999", "ws://127.0.0.1:p", "http://127.0.0.1", "127.0.0.1:8765", "ws://"]
)
def test_addresses_that_are_none_are_sentences(server: str) -> None:
    with pytest.raises(UserError, match="is no address: give ws://<host>:<port>"):
        RemotePolicy(server)


def test_a_token_that_no_header_holds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\nHost: evil")
    with pytest.raises(UserError, match="no line of plain letters"):
        read_token(str(tmp_path / "token"))


@pytest.mark.parametrize("path", ["/policy", "/"])
def test_a_page_in_a_browser_is_refused(path: str) -> None:
    with serving(PolicyServer(Counting(DESCRIBED))) as address:
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://{address}{path}", origin="https://evil.example")  # pyright: ignore[reportArgumentType]
        assert caught.value.response.status_code == 403


MAPS = b"\x81\xa1a" * 1000 + b"\xc0"
BOMBS = {
    "maps in maps": MAPS,
    "deeper than the parser": b"\x81\xa1a" * 1_000_000,
    "lists of lists of lists": b"\x9f" + b"\x9f" * 14 + (b"\x9f" + b"\xc0" * 15) * 100_000,
    "many maps": b"\xdd\x00\x01\x00\x00" + b"\x80" * 65536,
    "a map of many": b"\xdf\x00\x00\x20\x00"
    + b"".join(b"\xcd" + struct.pack(">H", key) + b"\xc0" for key in range(8192)),
    "a list that is not there": b"\xdd\xff\xff\xff\xff",
    "bytes that are not there": b"\xc6\xff\xff\xff\xff",
    "objects": msgpack.packb({"type": "hello", "x": msgpack.ExtType(1, b"x")}),
    "python's objects": msgpack.packb({"x": {b"__ndarray__": True, b"dtype": "|O", b"shape": [1], b"data": bytes(8)}}),
    "a large shape": msgpack.packb({"x": {"dtype": "uint8", "shape": [1 << 40], "data": b""}}),
    "a shape below zero": msgpack.packb({"x": {"dtype": "uint8", "shape": [-1, -1], "data": b"x"}}),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_messages_out_of_proportion_are_refused(bomb: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode(bomb, "hello", "predict")
    with pytest.raises((MalformedMessageError, UserError)):
        unpack_observation(bomb, DESCRIBED)


def test_a_bomb_ends_its_connection_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    with serving(PolicyServer(Counting(DESCRIBED))) as address, greeted(address) as good, greeted(address) as bad:
        bad.send(b"\x81\xa1a" * 900_000)
        assert decode(bad.recv(timeout=60), "refused")["reason"].startswith("malformed message")
        good.send(encode("predict", id=1, chunk=0, seed=0, observation=REQUEST))
        assert decode(good.recv(timeout=60), "actions")["id"] == 1
        with contextlib.suppress(ConnectionClosed):
            good.send(bytes(1 << 26))  # more than the cameras can give
        with pytest.raises(ConnectionClosed):
            good.recv(timeout=60)


def test_idle_clients_make_room(caplog: pytest.LogCaptureFixture) -> None:
    server = PolicyServer(Counting(DESCRIBED), connections=2, patience=1.0)
    with serving(server) as address, greeted(address) as idle, greeted(address) as busy:
        with pytest.raises(InvalidStatus):  # neither has been silent for long
            greeted(address)
        for number in range(4):
            time.sleep(0.4)
            busy.send(encode("predict", id=number, chunk=0, seed=0, observation=REQUEST))
            decode(busy.recv(timeout=60), "actions")
        with greeted(address) as third:
            third.send(encode("predict", id=9, chunk=0, seed=0, observation=REQUEST))
            assert decode(third.recv(timeout=60), "actions")["id"] == 9
            busy.send(encode("predict", id=10, chunk=0, seed=0, observation=REQUEST))
            assert decode(busy.recv(timeout=60), "actions")["id"] == 10
            with pytest.raises(ConnectionClosed):
                idle.recv(timeout=60)
        assert logged(caplog, "asked nothing for long")


def test_the_readmes_client_in_plain_python(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert 30 <= len(code.splitlines()) <= 42
    (tmp_path / "client.py").write_text(code)
    specification = importlib.util.spec_from_file_location("client", tmp_path / "client.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    policy = Counting(DESCRIBED)
    with serving(PolicyServer(policy, token="secret")) as address:
        client = module.Policy(f"ws://{address}", "secret")
        frames = {CAMERA: (24, 32, REQUEST[CAMERA].tobytes())}
        actions = client.predict(frames, REQUEST["observation.state"].tobytes(), chunk=2)
        np.testing.assert_array_equal(np.float32(actions), policy.predict(REQUEST, 2))
        with pytest.raises(RuntimeError, match="brings frames of 20×32 px"):
            client.predict({CAMERA: (20, 32, bytes(20 * 32 * 3))}, REQUEST["observation.state"].tobytes(), chunk=0)
        client.connection.close()
    assert client.metadata == DESCRIBED


class OpenpiClient:
    """openpi's client, by its published protocol."""

    def __init__(self, address: str, key: str | None = None) -> None:
        headers = {"Authorization": f"Api-Key {key}"} if key else None
        self.connection = connect(address, compression=None, max_size=None, additional_headers=headers)
        self.metadata = msgpack.unpackb(self.connection.recv(timeout=60))

    def infer(self, seen: dict[str, object]) -> dict[str, object]:
        self.connection.send(pack(seen))
        answer = self.connection.recv(timeout=60)
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return msgpack.unpackb(answer)


FRAME, STATE = REQUEST[CAMERA][0], REQUEST["observation.state"][0]


def test_openpis_clients_are_served() -> None:
    policy = Counting(DESCRIBED)
    with serving(PolicyServer(policy, token="secret")) as address:
        with pytest.raises(InvalidStatus):
            OpenpiClient(f"ws://{address}", "wrong")
        client = OpenpiClient(f"ws://{address}", "secret")
        assert client.metadata == DESCRIBED
        seen = {"observation/images/front": FRAME, "observation/state": STATE.astype(np.float64), "prompt": "lift"}
        for chunk in range(2):
            actions = client.infer(seen)["actions"]
            assert actions[b"dtype"] == "<f4" and actions[b"shape"] == [6, 2]
            expected = policy.predict(REQUEST, chunk)
            np.testing.assert_array_equal(np.frombuffer(actions[b"data"], "<f4").reshape(6, 2), expected)
        for broken, sentence in (
            ({"front": FRAME}, "lacks observation.state"),
            ({"front": FRAME, "observation/images/front": FRAME, "state": STATE}, "twice"),
            ({"front": FRAME[:20], "state": STATE}, "brings frames of 20×32 px"),
            ({"front": "frame", "state": STATE}, "brings a str"),
        ):
            client = OpenpiClient(f"ws://{address}", "secret")
            with pytest.raises(RuntimeError, match=sentence):
                client.infer(broken)
            with pytest.raises(ConnectionClosed):
                client.connection.recv(timeout=60)


def test_an_openpi_prompt_says_the_task() -> None:
    policy = Counting({**DESCRIBED, "tasks": ["open the door", "close the door"]})
    with serving(PolicyServer(policy)) as address:
        seen = {"front": FRAME, "state": STATE}
        OpenpiClient(f"ws://{address}").infer({**seen, "prompt": "close the door"})
        assert policy.seen[-1]["task"].tolist() == [1]
        with pytest.raises(RuntimeError, match="needs to be told which"):
            OpenpiClient(f"ws://{address}").infer(seen)
        with RemotePolicy(f"ws://{address}") as remote:
            remote.predict({**REQUEST, "task": np.array([0])}, 0)
        assert policy.seen[-1]["task"].tolist() == [0]


@pytest.mark.slow
def test_openpis_own_client(tmp_path: Path) -> None:
    """Without what it asks for, an older numpy: its client needs websockets, msgpack and typing_extensions alone."""
    packages = ["openpi-client==0.1.2", "typing-extensions"]
    subprocess.run(["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), *packages], check=True)
    ask = (
        "import sys, numpy; from openpi_client.websocket_client_policy import WebsocketClientPolicy as Client\n"
        "host, port = sys.argv[1].split(':')\n"
        "seen = {'front': numpy.zeros((24, 32, 3), numpy.uint8), 'state': numpy.zeros(2, numpy.float32)}\n"
        "print(Client(host, int(port)).infer(seen)['actions'].shape)\n"
    )
    with serving(PolicyServer(Counting(DESCRIBED))) as address:
        command = [sys.executable, "-c", f"import sys; sys.path.append({str(tmp_path)!r})\n{ask}", address]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(6, 2)"


@pytest.mark.slow
def test_ten_thousand_requests_take_no_memory() -> None:
    class Forgetful(Counting):
        def predict(self, stacked: dict[str, np.ndarray], chunk: int, seed: int = 0) -> np.ndarray:
            self.seen.clear()
            return super().predict(stacked, chunk, seed)

    with serving(PolicyServer(Forgetful(DESCRIBED))) as address, greeted(address) as client:
        sizes = []
        for number in range(12_000):
            client.send(encode("predict", id=number, chunk=0, seed=0, observation=REQUEST))
            decode(client.recv(timeout=60), "actions")
            if number % 2000 == 1999:
                sizes.append(int(Path("/proc/self/statm").read_text().split()[1]))
    assert sizes[-1] < 1.05 * sizes[0], sizes
