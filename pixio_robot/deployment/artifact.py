"""The artifact: one TorchScript file with its metadata inside, readable with torch alone.

Shape letters: B batch, H and W image size, S state size, A action size.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SCHEMA_VERSION = 1
_METADATA_FILE = "metadata.json"


class ArtifactShell(nn.Module):
    """Takes raw camera frames and raw state, prepares them, and calls a traced core.

    Input: a dictionary with, for each camera, uint8 frames (B, H, W, 3) in RGB as the camera gives them, and, for
    policies, `observation.state` (B, S) in raw units. Output: an unnormalised action chunk (B, horizon, A), or encoder
    tokens (B, G + h·w, D), global tokens first.
    """

    def __init__(
        self,
        core: torch.jit.ScriptModule,
        cameras: list[str],
        sizes: list[tuple[int, int]],
        state: tuple[Tensor, Tensor] | None,
        action: tuple[Tensor, Tensor] | None,
        example: dict[str, Tensor],
        expected: Tensor,
    ) -> None:
        """Put the parts together.

        Args:
            core: Traced on prepared images (a list, one per camera) and normalised state.
            cameras: Observation keys of the cameras, in the core's order.
            sizes: Height and width in pixels that the core takes from each camera.
            state: Mean and scale of the state (each (S,)), or None for an encoder.
            action: Mean and scale of the action (each (A,)), or None for an encoder.
            example: A golden observation.
            expected: What the eager path gives for it.
        """
        super().__init__()
        self.core = core
        self.cameras = cameras
        self.sizes = sizes
        self.has_state = state is not None
        zero, one = torch.zeros(1), torch.ones(1)
        for name, tensor in (
            ("state_mean", state[0] if state else zero),
            ("state_scale", state[1] if state else one),
            ("action_mean", action[0] if action else zero),
            ("action_scale", action[1] if action else one),
        ):
            self.register_buffer(name, tensor)
        self.state_mean: Tensor
        self.state_scale: Tensor
        self.action_mean: Tensor
        self.action_scale: Tensor
        self.golden_observation = example
        self.golden_output = expected

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Return the action chunk or the tokens."""
        images: list[Tensor] = []
        for index, camera in enumerate(self.cameras):
            frames = observation[camera]
            assert frames.dtype == torch.uint8 and frames.dim() == 4 and frames.size(3) == 3, (
                "camera frames must be uint8 (B, H, W, 3)"
            )
            image = frames.to(self.state_mean.device).permute(0, 3, 1, 2).contiguous().to(torch.float32) / 255
            height, width = self.sizes[index]
            if image.size(2) != height or image.size(3) != width:
                image = functional.interpolate(
                    image, size=[height, width], mode="bilinear", antialias=True, align_corners=False
                )
            images.append(image)
        if self.has_state:
            state = observation["observation.state"].to(self.state_mean.device, torch.float32)
            prepared_state = (state - self.state_mean) / self.state_scale
        else:
            prepared_state = torch.zeros(images[0].size(0), 1, device=images[0].device)
        return self.core(images, prepared_state) * self.action_scale + self.action_mean


def save_artifact(shell: ArtifactShell, metadata: dict[str, Any], path: Path) -> None:
    """Script the shell and write it with its metadata, atomically."""
    scripted = torch.jit.script(shell.eval())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    torch.jit.save(
        scripted, str(temporary), _extra_files={_METADATA_FILE: json.dumps({"schema": SCHEMA_VERSION, **metadata})}
    )
    os.replace(temporary, path)


def load_artifact(path: Path, device: str = "cpu") -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    """Load an artifact and its metadata.

    Raises:
        ValueError: The file is no artifact, or from a newer schema.
    """
    extra = {_METADATA_FILE: ""}
    try:
        module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
        metadata = json.loads(extra[_METADATA_FILE])
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no pixio-robot artifact; make one with scripts/export_torchscript.py.") from error
    if metadata["schema"] > SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema {metadata['schema']}, this version reads up to {SCHEMA_VERSION}: update pixio-robot."
        )
    return module, metadata
