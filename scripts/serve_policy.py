"""Serve an exported policy to robots whose computer is too weak for it.

uv run scripts/serve_policy.py artifact=policy.pt device=cuda
"""

import asyncio
import logging
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.logging import RichHandler

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError


@entry_point("serve_policy")
def main(cfg: DictConfig) -> None:
    """Serve until Ctrl-C; see configs/serve_policy.yaml."""
    from pixio_robot.deployment.remote.protocol import read_token
    from pixio_robot.deployment.remote.server import PolicyServer, tls_context
    from pixio_robot.deployment.runtime import ArtifactPolicy

    console = Console()
    logging.basicConfig(
        level=logging.INFO, handlers=[RichHandler(console=console, show_path=False)], format="%(message)s"
    )
    if (cfg.certificate is None) != (cfg.key is None):
        raise UserError("TLS needs both: give certificate=… and key=….")
    tls = tls_context(cfg.certificate, cfg.key) if cfg.certificate is not None else None
    server = PolicyServer(ArtifactPolicy(Path(cfg.artifact), cfg.device), read_token(cfg.token_file))

    async def serve() -> None:
        async with server.listen(cfg.host, cfg.port, tls) as listening:
            port = next(iter(listening.sockets)).getsockname()[1]
            scheme = "ws" if tls is None else "wss"
            console.print(
                f"{cfg.artifact} at {scheme}://{cfg.host}:{port}; Ctrl-C ends", highlight=False, soft_wrap=True
            )
            await listening.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
