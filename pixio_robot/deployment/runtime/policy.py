"""What the runtime asks for actions: an artifact in this process, or a server that has one.

Shape letters: H action horizon, A action size.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pixio_robot.common.errors import UserError
from pixio_robot.common.noise import chunk_noise
from pixio_robot.deployment.artifact.loading import load_artifact
from pixio_robot.deployment.runtime.observation import Arrays

# TorchScript profiles its first call and compiles in the second; the third is as fast as all later ones.
_WARM_UP_CALLS = 3


class ChunkPolicy(Protocol):
    """Turns observations into chunks of actions."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The artifact's metadata (`pixio_robot.deployment.artifact.metadata`)."""
        ...

    def predict(self, stacked: Arrays, chunk: int, seed: int = 0) -> np.ndarray:
        """Return the actions (H, A) in raw units, the first for the newest observation.

        Args:
            stacked: As `History.stacked` gives it.
            chunk: Number of chunks since the episode began.
            seed: Of the episode; with the chunk it decides what a policy that samples starts from.
        """
        ...


class ArtifactPolicy:
    """A policy artifact in this process, read with torch alone."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Load the artifact and call it until it is as fast as it will be.

        Raises:
            UserError: The file is no artifact of this schema, damaged, not made for the device, or an encoder's.
        """
        self._module, self.metadata = load_artifact(path, device)
        if self.metadata["kind"] != "policy":
            raise UserError(f"{path} holds an encoder, which gives no actions: export a policy with checkpoint=….")
        with torch.inference_mode():
            for _ in range(_WARM_UP_CALLS):
                self._module(self._module.golden_observation)

    @torch.inference_mode()
    def predict(self, stacked: Arrays, chunk: int, seed: int = 0) -> np.ndarray:
        """Return the actions (H, A); see `ChunkPolicy`."""
        observed = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in stacked.items()}
        noise = self.metadata["noise"]
        if noise is not None:
            observed[noise["key"]] = torch.from_numpy(chunk_noise(tuple(noise["shape"]), seed, chunk))[None]
        return self._module(observed)[0].to("cpu", torch.float32).numpy()
