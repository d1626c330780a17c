"""The policy server: one artifact, asked by robots over websockets."""

import asyncio
import contextlib
import hmac
import http
import json
import logging
import secrets
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from pixio_robot.common.errors import UserError, printable
from pixio_robot.deployment.artifact.metadata import SCHEMA_VERSION
from pixio_robot.deployment.remote import openpi, protocol
from pixio_robot.deployment.remote.protocol import MalformedMessageError, decode, encode
from pixio_robot.deployment.runtime.observation import Arrays, check_stacked
from pixio_robot.deployment.runtime.policy import ChunkPolicy

logger = logging.getLogger(__name__)
_POLICY_VIOLATION = 1008
_NUMBERS = 1 << 31
"""Chunks and seeds lie below."""
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


class PolicyServer:
    """Answers requests for chunks of one policy, one at a time.

    Every request brings its whole history: a client that reconnects goes on as if nothing had happened.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        token: str | None = None,
        *,
        connections: int = 16,
        waiting: int = 4,
        patience: float = 10.0,
    ) -> None:
        """Prepare a server.

        Args:
            policy: What answers.
            token: What clients have to know; None lets everybody in.
            connections: Clients at a time; one more takes the place of the one that has asked nothing for longest, if that
                is longer than `patience`, and is refused otherwise.
            waiting: Requests of all clients that wait for the one inference at a time; more are refused.
            patience: Seconds that a client may take to say hello, to answer a ping, and to take in an answer.
        """
        self._policy, self._token = policy, token
        self._most = {"connections": connections, "waiting": waiting}
        self._counts = {"connections": 0, "waiting": 0, "answered": 0}
        self._patience = patience
        self._last_asked: dict[ServerConnection, float] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")

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
        if self._token is None and host not in protocol.LOCAL_HOSTS:
            raise UserError(
                f"Listening on {host} would let everybody on the network ask this policy: give a token "
                "(token_file=…), or listen on 127.0.0.1."
            )
        server = serve(
            self._serve_client,
            host,
            port,
            ssl=tls,
            process_request=self._admit,
            origins=[None],  # browsers say on whose behalf they ask, and none has anything to ask here
            max_size=protocol.most_request_bytes(self._policy.metadata),
            max_queue=2,
            compression=None,  # camera frames hardly shrink
            **dict.fromkeys(("open_timeout", "ping_interval", "ping_timeout", "close_timeout"), self._patience),
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
        if request.path == protocol.HEALTH_PATH:
            state = {"status": "ok", "protocol": protocol.PROTOCOL_VERSION, "schema": SCHEMA_VERSION, **self._counts}
            response = connection.respond(http.HTTPStatus.OK, json.dumps(state) + "\n")
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "application/json"
            return response
        if request.path == openpi.OPENPI_HEALTH_PATH:
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if request.path not in (protocol.POLICY_PATH, openpi.OPENPI_PATH):
            asked = f"ask {protocol.POLICY_PATH} or {protocol.HEALTH_PATH}\n"
            return connection.respond(http.HTTPStatus.NOT_FOUND, asked)
        offered = request.headers.get("Authorization", "")
        scheme = "Api-Key" if request.path == openpi.OPENPI_PATH else "Bearer"
        if self._token and not hmac.compare_digest(offered.encode(), f"{scheme} {self._token}".encode()):
            logger.warning("refused %s: no or a wrong token", _name(connection))
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "a token is needed\n")
        if self._counts["connections"] >= self._most["connections"] and not self._drop_idle():
            logger.warning("refused %s: %d clients are connected", _name(connection), self._counts["connections"])
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients\n")
        return None

    @contextlib.contextmanager
    def _counted(self, what: str) -> Any:  # noqa: ANN401
        self._counts[what] += 1
        try:
            yield
        finally:
            self._counts[what] -= 1

    def _drop_idle(self) -> bool:
        """Drop the client that has asked nothing for longest; tells whether one had been silent long enough."""
        idle = min(self._last_asked, key=lambda connection: self._last_asked[connection], default=None)
        if idle is None or asyncio.get_running_loop().time() - self._last_asked[idle] <= self._patience:
            return False
        logger.warning("dropped %s: it asked nothing for long, and another client waits", _name(idle))
        del self._last_asked[idle]
        idle.transport.abort()
        return True

    async def _serve_client(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        speaks_openpi = connection.request.path == openpi.OPENPI_PATH
        with self._counted("connections"):
            self._last_asked[connection] = asyncio.get_running_loop().time()
            try:
                await (self._serve_openpi(connection) if speaks_openpi else self._serve_ours(connection))
            except (MalformedMessageError, UserError) as error:
                reason = str(error) if isinstance(error, UserError) else f"malformed message: {error}"
                logger.warning("refused %s: %s", _name(connection), printable(reason))
                with contextlib.suppress(ConnectionClosed, TimeoutError):
                    await self._send(connection, reason if speaks_openpi else encode("refused", reason=reason))
                    await connection.close(_POLICY_VIOLATION)
            except TimeoutError:
                logger.warning("dropped %s: it took longer than %g s", _name(connection), self._patience)
                connection.transport.abort()
            except ConnectionClosed as error:
                logger.info("lost %s: %s", _name(connection), error)
            finally:
                self._last_asked.pop(connection, None)

    async def _serve_ours(self, connection: ServerConnection) -> None:
        async with asyncio.timeout(self._patience):
            hello = decode(await connection.recv(), "hello")
        for what, ours in (("protocol", protocol.PROTOCOL_VERSION), ("schema", SCHEMA_VERSION)):
            if hello[what] != ours:
                raise UserError(
                    f"The client speaks {what} {hello[what]}, this server {what} {ours}: install the same "
                    f"version of pixio-robot on both."
                )
        await self._send(connection, encode("welcome", metadata=dict(self._policy.metadata)))
        logger.info("connected %s", _name(connection))
        async for received in connection:
            # In a thread: what takes long to read keeps nobody else waiting.
            request = await asyncio.to_thread(decode, received, "predict")
            try:
                actions_HA = await self._actions(connection, request["observation"], request["chunk"], request["seed"])
                answer = encode("actions", id=request["id"], actions=actions_HA)
            except UserError as error:
                logger.warning("refused a request of %s: %s", _name(connection), printable(str(error)))
                answer = encode("error", id=request["id"], reason=str(error))
            await self._send(connection, answer)

    async def _serve_openpi(self, connection: ServerConnection) -> None:
        metadata, loop = self._policy.metadata, asyncio.get_running_loop()
        await self._send(connection, openpi.pack(metadata))
        logger.info("connected %s, which speaks openpi's protocol", _name(connection))
        chunk, seed = 0, secrets.randbelow(_NUMBERS)  # its client knows no episodes
        async for received in connection:
            observation = await asyncio.to_thread(openpi.unpack_observation, received, metadata)
            began = loop.time()
            actions_HA = await self._actions(connection, observation, chunk, seed)
            timing = {"infer_ms": 1000 * (loop.time() - began)}
            await self._send(connection, openpi.pack({"actions": actions_HA, "server_timing": timing}))
            chunk += 1

    async def _actions(self, connection: ServerConnection, observation: Arrays, chunk: int, seed: int) -> np.ndarray:
        """Return the actions (H, A) for a request, by the one thread of the policy.

        Raises:
            UserError: The request does not fit, too many wait, or the policy failed.
        """
        loop = asyncio.get_running_loop()
        if connection in self._last_asked:
            self._last_asked[connection] = loop.time()
        check_stacked(self._policy.metadata, observation)
        for what, number in (("chunk's number", chunk), ("episode's seed", seed)):
            if number not in range(_NUMBERS):
                raise UserError(f"The {what} is {number}, expected one from 0 on.")
        if self._counts["waiting"] >= self._most["waiting"]:
            raise UserError(f"The server is busy: {self._counts['waiting']} requests wait already.")
        with self._counted("waiting"):
            try:
                actions_HA = await loop.run_in_executor(self._thread, self._policy.predict, observation, chunk, seed)
            except Exception as error:
                logger.exception("the policy failed on a request of %s", _name(connection))
                raise UserError(f"the policy failed ({type(error).__name__})") from error
        self._counts["answered"] += 1
        return actions_HA

    async def _send(self, connection: ServerConnection, message: bytes | str) -> None:
        async with asyncio.timeout(self._patience):  # pings wait for what is being sent, and would wait for ever
            await connection.send(message)


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
