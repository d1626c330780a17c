"""The robot's side of a policy server: to the runtime a policy like one in its own process."""

import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.metadata import SCHEMA_VERSION, check_metadata
from pixio_robot.deployment.remote.protocol import (
    MAX_MESSAGE_BYTES,
    POLICY_PATH,
    PROTOCOL_VERSION,
    MalformedMessageError,
    decode,
    encode,
)
from pixio_robot.deployment.runtime.observation import Arrays


class RemoteError(RuntimeError):
    """The server gave no actions: the connection broke, it refused, or it answered nonsense."""


class RemotePolicy:
    """Asks a policy server for chunks; connects again after a broken connection, when the next chunk is asked for.

    A `ChunkPolicy`. Not for several threads at a time.
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
        self._uri = server.rstrip("/") + POLICY_PATH
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._tls = None
        self._timeout = timeout
        if token is not None and not server.startswith("wss://") and not _is_local(server):
            raise UserError(f"{server} would send the token in the clear: use wss://, or a tunnel to 127.0.0.1.")
        if server.startswith("wss://"):
            try:
                self._tls = ssl.create_default_context(cafile=certificates)
            except (OSError, ssl.SSLError) as error:
                raise UserError(f"Cannot read certificates from {certificates}: {error}.") from error
        self._connection: ClientConnection | None = None
        self._requests = 0
        self._lock = threading.Lock()
        try:
            self._connection, self._metadata = self._connect()
        except (RemoteError, MalformedMessageError) as error:
            raise UserError(f"No policy from {server}: {error}.") from error
        if self._metadata["kind"] != "policy":
            raise UserError(f"{server} serves an encoder, which gives no actions: serve a policy.")

    def __enter__(self) -> Self:
        """Return the policy."""
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self.close()

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the server's artifact."""
        return self._metadata

    def predict(self, stacked: Arrays, chunk: int) -> np.ndarray:
        """Return the actions (H, A); see `ChunkPolicy`.

        Raises:
            RemoteError: There are none; the next call tries again.
        """
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._reconnect()
                return self._ask(self._connection, stacked, chunk)
            except (WebSocketException, OSError, MalformedMessageError) as error:
                self.close()  # an answer that comes later must not be taken for one to the next question
                raise RemoteError(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, connection: ClientConnection, stacked: Arrays, chunk: int) -> np.ndarray:
        self._requests += 1
        connection.send(encode("predict", id=self._requests, chunk=chunk, observation=stacked))
        answer = decode(connection.recv(timeout=self._patience()), "actions", "error", "refused")
        if answer["type"] == "refused":
            raise MalformedMessageError(f"refused: {answer['reason']}")
        if answer["id"] != self._requests:
            raise MalformedMessageError(f"an answer to request {answer['id']} instead of {self._requests}")
        if answer["type"] == "error":
            raise RemoteError(answer["reason"])
        actions_HA = answer["actions"]
        expected = (self._metadata["action_horizon"], self._metadata["action"]["size"])
        if actions_HA.dtype != np.float32 or actions_HA.shape != expected:
            raise MalformedMessageError(f"actions {actions_HA.dtype} {actions_HA.shape}, expected float32 {expected}")
        return actions_HA

    def _patience(self) -> float:
        rate = self._metadata["control_rate_hz"]
        return self._timeout if rate is None else min(self._timeout, self._metadata["action_horizon"] / rate)

    def _reconnect(self) -> ClientConnection:
        connection, metadata = self._connect()
        if metadata != self._metadata:
            connection.close()
            raise RemoteError("the server has another artifact by now: start anew")
        return connection

    def _connect(self) -> tuple[ClientConnection, dict[str, Any]]:
        try:
            connection = connect(
                self._uri,
                additional_headers=self._headers,
                ssl=self._tls,
                open_timeout=self._timeout,
                close_timeout=1,
                max_size=MAX_MESSAGE_BYTES,
                compression=None,
                proxy=None,
            )
        except InvalidStatus as error:
            said = bytes(error.response.body or b"").decode(errors="replace").strip()
            raise RemoteError(f"the server answered {error.response.status_code} ({said})") from error
        except (InvalidURI, InvalidHandshake, OSError, ValueError) as error:
            raise RemoteError(f"cannot connect ({error})") from error
        try:
            connection.send(encode("hello", protocol=PROTOCOL_VERSION, schema=SCHEMA_VERSION))
            answer = decode(connection.recv(timeout=self._timeout), "welcome", "refused")
            if answer["type"] == "refused":
                raise MalformedMessageError(answer["reason"])
            return connection, check_metadata(answer["metadata"], "the server's artifact")
        except BaseException as error:
            connection.close()
            if isinstance(error, (WebSocketException, TimeoutError)):
                raise RemoteError(f"no welcome ({error})") from error
            raise


def read_token(path: str | None) -> str | None:
    """Return the token in a file; None where no file is named.

    Raises:
        UserError: The file cannot be read, or is empty.
    """
    if path is None:
        return None
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the token in {path}: {error}.") from error
    if not token:
        raise UserError(f"{path} holds no token: write one into it, for example with 'openssl rand -hex 32'.")
    return token


def _is_local(server: str) -> bool:
    host = server.removeprefix("ws://").partition("/")[0]
    return host.startswith(("127.0.0.1", "localhost", "[::1]"))
