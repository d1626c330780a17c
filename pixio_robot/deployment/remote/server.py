"""The policy server: one artifact, asked by robots over websockets."""

import asyncio
import contextlib
import hmac
import http
import json
import logging
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.metadata import SCHEMA_VERSION
from pixio_robot.deployment.remote.protocol import (
    HEALTH_PATH,
    MAX_MESSAGE_BYTES,
    POLICY_PATH,
    PROTOCOL_VERSION,
    MalformedMessageError,
    decode,
    encode,
)
from pixio_robot.deployment.runtime.observation import check_stacked
from pixio_robot.deployment.runtime.policy import ChunkPolicy

logger = logging.getLogger(__name__)

_CLOSE_POLICY_VIOLATION = 1008
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
# It logs with tracebacks what `_Connection` and `_serve_client` say in a line.
_quiet = logging.getLogger(f"{__name__}.websockets")
_quiet.setLevel(logging.CRITICAL)


class _Connection(ServerConnection):
    """Says so where something connects and is no websocket client, such as a port scanner."""

    async def handshake(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 (websockets' own)
        try:
            await super().handshake(*arguments, **named)
        finally:
            if self.request is None or self.protocol.handshake_exc is not None:
                why = self.protocol.handshake_exc or "no whole request came"
                logger.warning("refused %s: no websocket handshake (%s)", _name(self), why)


@dataclass(frozen=True)
class ServerLimits:
    """How much clients may ask for; what is beyond is refused at once.

    Attributes:
        connections: Clients at a time.
        waiting: Requests of all clients that wait for the one inference at a time.
        patience: Seconds that a client may take to say hello, to answer a ping, and to take in an answer.
    """

    connections: int = 16
    waiting: int = 4
    patience: float = 10.0


class PolicyServer:
    """Answers requests for chunks of one policy, one at a time.

    Every request brings its whole history: a client that reconnects goes on as if nothing had happened.
    """

    def __init__(self, policy: ChunkPolicy, token: str | None = None, limits: ServerLimits | None = None) -> None:
        """Prepare a server.

        Args:
            policy: What answers.
            token: What clients have to know; None lets everybody in.
            limits: How much they may ask for.
        """
        self._policy, self._token = policy, token
        self._limits = limits or ServerLimits()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._connections = self._waiting = self._answered = 0

    @contextlib.asynccontextmanager
    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        """Serve while the context is open.

        Args:
            host: Interface to listen on.
            port: 0 takes a free one.
            tls: From `tls_context`; None sends everything in the clear.

        Raises:
            UserError: Other computers could connect without a token, or the port is taken.
        """
        if self._token is None and host not in _LOCAL_HOSTS:
            raise UserError(
                f"Listening on {host} would let everybody on the network ask this policy: give a token "
                "(token_file=…), or listen on 127.0.0.1."
            )
        patience = self._limits.patience
        server = serve(
            self._serve_client,
            host,
            port,
            ssl=tls,
            process_request=self._admit,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=2,
            compression=None,  # camera frames hardly shrink
            open_timeout=patience,
            ping_interval=patience,
            ping_timeout=patience,
            close_timeout=patience,
            create_connection=_Connection,
            logger=_quiet,
        )
        try:
            async with server as listening:
                yield listening
        except OSError as error:
            raise UserError(f"Cannot listen on {host}:{port}: {error.strerror or error}.") from error

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer plain requests, and refuse clients before any message of theirs is read."""
        if request.path == HEALTH_PATH:
            return self._health(connection)
        if request.path != POLICY_PATH:
            return connection.respond(http.HTTPStatus.NOT_FOUND, f"ask {POLICY_PATH} or {HEALTH_PATH}\n")
        if self._token is not None:
            offered = request.headers.get("Authorization", "")
            if not hmac.compare_digest(offered.encode(), f"Bearer {self._token}".encode()):
                logger.warning("refused %s: no or a wrong token", _name(connection))
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "a token is needed\n")
        if self._connections >= self._limits.connections:
            logger.warning("refused %s: %d clients are connected", _name(connection), self._connections)
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients\n")
        return None

    def _health(self, connection: ServerConnection) -> Response:
        state: dict[str, Any] = {
            "status": "ok",
            "protocol": PROTOCOL_VERSION,
            "schema": SCHEMA_VERSION,
            "connections": self._connections,
            "waiting": self._waiting,
            "answered": self._answered,
        }
        response = connection.respond(http.HTTPStatus.OK, json.dumps(state) + "\n")
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    async def _serve_client(self, connection: ServerConnection) -> None:
        self._connections += 1
        try:
            await self._greet(connection)
            async for received in connection:
                await self._answer(connection, received)
        except MalformedMessageError as error:
            await self._refuse(connection, f"malformed message: {error}")
        except UserError as error:
            await self._refuse(connection, str(error))
        except TimeoutError:
            logger.warning("dropped %s: it took longer than %g s", _name(connection), self._limits.patience)
            connection.transport.abort()
        except ConnectionClosed as error:
            logger.info("lost %s: %s", _name(connection), error)
        finally:
            self._connections -= 1

    async def _greet(self, connection: ServerConnection) -> None:
        async with asyncio.timeout(self._limits.patience):
            hello = decode(await connection.recv(), "hello")
        for what, theirs, ours in (
            ("protocol", hello["protocol"], PROTOCOL_VERSION),
            ("schema", hello["schema"], SCHEMA_VERSION),
        ):
            if theirs != ours:
                raise UserError(
                    f"The client speaks {what} {theirs}, this server {what} {ours}: install the same version of "
                    f"pixio-robot on both."
                )
        await self._send(connection, encode("welcome", metadata=dict(self._policy.metadata)))
        logger.info("connected %s", _name(connection))

    async def _answer(self, connection: ServerConnection, received: object) -> None:
        request = decode(received, "predict")
        number = request["id"]
        try:
            check_stacked(self._policy.metadata, request["observation"])
            if request["chunk"] not in range(1 << 31):
                raise UserError(f"The chunk's number is {request['chunk']}, expected one from 0 on.")
            if self._waiting >= self._limits.waiting:
                raise UserError(f"The server is busy: {self._waiting} requests wait already.")
        except UserError as error:
            logger.warning("refused a request of %s: %s", _name(connection), error)
            await self._send(connection, encode("error", id=number, reason=str(error)))
            return
        self._waiting += 1
        try:
            work = asyncio.get_running_loop().run_in_executor(
                self._thread, self._policy.predict, request["observation"], request["chunk"]
            )
            actions_HA = await work
        except Exception as error:
            logger.exception("the policy failed on a request of %s", _name(connection))
            reason = f"the policy failed ({type(error).__name__})"
            await self._send(connection, encode("error", id=number, reason=reason))
            return
        finally:
            self._waiting -= 1
        await self._send(connection, encode("actions", id=number, actions=actions_HA))
        self._answered += 1

    async def _send(self, connection: ServerConnection, message: bytes) -> None:
        async with asyncio.timeout(self._limits.patience):
            await connection.send(message)

    async def _refuse(self, connection: ServerConnection, reason: str) -> None:
        logger.warning("refused %s: %s", _name(connection), reason)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            await self._send(connection, encode("refused", reason=reason))
            await connection.close(_CLOSE_POLICY_VIOLATION)


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return the server's side of TLS.

    Args:
        certificate: PEM file with the server's certificate chain.
        key: PEM file with its private key.

    Raises:
        UserError: A file cannot be read, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"Cannot use certificate {certificate} with key {key}: {error}.") from error
    return context


def _name(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if address else "a client that is gone"
