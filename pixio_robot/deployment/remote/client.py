"""The robot's side of a policy server: to the runtime a policy like one in its own process."""

import contextlib
import ssl
import threading
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.metadata import SCHEMA_VERSION, check_metadata
from pixio_robot.deployment.remote import protocol
from pixio_robot.deployment.remote.protocol import MalformedMessageError, decode, encode
from pixio_robot.deployment.runtime.observation import Arrays


class RemoteError(RuntimeError):
    """The server gave no actions: the connection broke, it refused, or it answered nonsense."""


class RemotePolicy(contextlib.AbstractContextManager):
    """Asks a policy server for chunks; connects again after a broken connection, when the next chunk is asked for.

    A `ChunkPolicy`. Requests of several threads wait for each other.
    """

    def __init__(
        self, server: str, token: str | None = None, certificates: str | None = None, timeout: float = 5.0
    ) -> None:
        """Connect, and take over the metadata of the server's artifact.

        Args:
            server: `ws://host:port`, or `wss://host:port` for TLS.
            token: What the server wants to hear.
            certificates: PEM file with what a `wss://` server's certificate is checked against; None: the system's.
            timeout: Seconds after which connecting is given up; an answer is waited for as long as its actions
                reach, if that is shorter.

        Raises:
            UserError: There is no server, or it refuses, or it speaks another version.
        """
        tls = None
        try:
            address = urlsplit(server)
            whole = address.scheme in ("ws", "wss") and address.hostname is not None and address.port != 0
        except ValueError:  # a port that is no number, or none there is
            whole = False
        if not whole:
            raise UserError(f"server={server} is no address: give ws://<host>:<port>, or wss:// for TLS.")
        if server.startswith("wss://"):
            try:
                tls = ssl.create_default_context(cafile=certificates)
            except (OSError, ssl.SSLError) as error:
                raise UserError(f"Cannot read certificates from {certificates}: {error}.") from error
        elif token is not None and address.hostname not in protocol.LOCAL_HOSTS:
            raise UserError(f"{server} would send the token in the clear: use wss://, or a tunnel to 127.0.0.1.")
        self._uri, self._timeout, self._lock = server.rstrip("/") + protocol.POLICY_PATH, timeout, threading.Lock()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._options: dict[str, Any] = {"additional_headers": headers, "ssl": tls, "open_timeout": timeout}
        self._connection: ClientConnection | None = None
        self._requests = 0
        try:
            connection, self.metadata = self._connect()
        except (RemoteError, MalformedMessageError) as error:
            raise UserError(f"No policy from {server}: {error}.") from error
        self._connection = connection
        if self.metadata["kind"] != "policy":
            raise UserError(f"{server} serves an encoder, which gives no actions: serve a policy.")

    def predict(self, stacked: Arrays, chunk: int, seed: int = 0) -> np.ndarray:
        """Return the actions (H, A); see `ChunkPolicy`.

        Raises:
            RemoteError: There are none; the next call tries again.
        """
        with self._lock:
            try:
                return self._ask(stacked, chunk, seed)
            except (WebSocketException, OSError, MalformedMessageError) as error:
                self.close()  # an answer that comes later must not be taken for one to the next question
                raise RemoteError(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self.close()

    def _ask(self, stacked: Arrays, chunk: int, seed: int) -> np.ndarray:
        if self._connection is None:
            connection, metadata = self._connect()
            if metadata != self.metadata:
                connection.close()
                raise RemoteError("the server has another artifact now: start the robot's program again")
            self._connection = connection
        self._requests += 1
        self._connection.send(encode("predict", id=self._requests, chunk=chunk, seed=seed, observation=stacked))
        horizon, rate = self.metadata["action_horizon"], self.metadata["control_rate_hz"]
        patience = self._timeout if rate is None else min(self._timeout, horizon / rate)
        answer = decode(self._connection.recv(timeout=patience), "actions", "error", "refused")
        if answer["type"] == "refused":
            raise MalformedMessageError(f"refused: {answer['reason']}")
        if answer["id"] != self._requests:
            raise MalformedMessageError(f"an answer to request {answer['id']} instead of {self._requests}")
        if answer["type"] == "error":
            raise RemoteError(answer["reason"])
        actions_HA, expected = answer["actions"], (horizon, self.metadata["action"]["size"])
        if actions_HA.dtype != np.float32 or actions_HA.shape != expected:
            raise MalformedMessageError(f"actions {actions_HA.dtype} {actions_HA.shape}, expected float32 {expected}")
        return actions_HA

    def _connect(self) -> tuple[ClientConnection, dict[str, Any]]:
        try:
            connection = connect(
                self._uri,
                **self._options,
                close_timeout=1,
                max_size=protocol.MAX_MESSAGE_BYTES,
                compression=None,
                proxy=None,
            )
        except InvalidStatus as error:
            said = bytes(error.response.body or b"").decode(errors="replace").strip()
            raise RemoteError(f"the server answered {error.response.status_code} ({said})") from error
        except (WebSocketException, OSError, ValueError) as error:
            raise RemoteError(f"cannot connect ({error})") from error
        with contextlib.ExitStack() as closing:
            closing.callback(connection.close)
            try:
                connection.send(encode("hello", protocol=protocol.PROTOCOL_VERSION, schema=SCHEMA_VERSION))
                answer = decode(connection.recv(timeout=self._timeout), "welcome", "refused")
            except (WebSocketException, OSError) as error:
                raise RemoteError(f"no welcome ({error})") from error
            if answer["type"] == "refused":
                raise MalformedMessageError(answer["reason"])
            metadata = check_metadata(answer["metadata"], "the server's artifact")
            closing.pop_all()
        return connection, metadata
