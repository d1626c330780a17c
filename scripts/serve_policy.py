"""Serve an exported policy to robots whose computer is too weak for it.

uv run scripts/serve_policy.py artifact=policy.pt
uv run scripts/serve_policy.py artifact=policy.pt device=cuda host=0.0.0.0 token_file=token.txt
uv run scripts/serve_policy.py artifact=policy.pt certificate=server.pem key=server.key
"""

import asyncio
import logging
from typing import Annotated

from annotated_types import Le
from rich.console import Console
from rich.logging import RichHandler

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Place, Text, Whole, settings


@settings(kw_only=True)
class ServePolicy:
    """Settings of the job."""

    artifact: Place
    """A policy of scripts/export.py."""
    device: Text = "cpu"
    """Where it runs."""
    host: Text = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for other computers, which takes a token."""
    port: Annotated[Whole, Le(65535)] = 8765
    """Port; 0 takes a free one."""
    token_file: Text | None = None
    """Holds what clients must know, for example from 'openssl rand -hex 32'."""
    certificate: Text | None = None
    """PEM file for TLS."""
    key: Text | None = None
    """PEM file of its key."""

    def __post_init__(self) -> None:
        """Check that TLS has both files.

        Raises:
            UserError: It has one.
        """
        if (self.certificate is None) != (self.key is None):
            raise UserError("TLS needs both: give certificate=… and key=….")


@entry_point("serve_policy", ServePolicy)
def main(settings: ServePolicy) -> None:
    """Serve until Ctrl-C."""
    from pixio_robot.deployment.remote.protocol import read_token
    from pixio_robot.deployment.remote.server import PolicyServer, tls_context
    from pixio_robot.deployment.runtime import ArtifactPolicy

    console = Console()
    logging.basicConfig(
        level=logging.INFO, handlers=[RichHandler(console=console, show_path=False)], format="%(message)s"
    )
    secured = settings.certificate is not None and settings.key is not None
    tls = tls_context(settings.certificate, settings.key) if secured else None
    server = PolicyServer(ArtifactPolicy(settings.artifact, settings.device), read_token(settings.token_file))

    async def serve() -> None:
        async with server.listen(settings.host, settings.port, tls) as listening:
            port = next(iter(listening.sockets)).getsockname()[1]
            address = f"{'ws' if tls is None else 'wss'}://{settings.host}:{port}"
            console.print(f"{settings.artifact} at {address}; Ctrl-C ends", highlight=False, soft_wrap=True)
            await listening.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
