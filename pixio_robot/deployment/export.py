"""Export of policies and encoders as TorchScript, checked against the eager path before the file is kept.

Shape letters: B batch, H and W image size, S state size.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixio_robot.deployment.artifact import ArtifactShell, load_artifact, save_artifact
from pixio_robot.encoders import EncoderConfig, VisionEncoder, frames_to_images, weights_hash
from pixio_robot.errors import UserError

PARITY_TOLERANCE = 1e-4
"""Largest difference between artifact and eager path, relative to the output's scale where that exceeds 1."""


@dataclass(frozen=True)
class ExportedArtifact:
    """What an export produced."""

    path: Path
    metadata: dict[str, Any]
    difference: float
    """Largest difference from the eager path on the checked frames."""
    frames: int
    """Number of frames it was checked on."""


class _EncoderCore(nn.Module):
    def __init__(self, encoder: VisionEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: list[Tensor], state_BS: Tensor) -> Tensor:
        del state_BS
        return self.encoder(images[0]).flatten()


class _PolicyCore(nn.Module):
    def __init__(self, policy: nn.Module, cameras: list[str]) -> None:
        super().__init__()
        self.policy: Any = policy
        self.cameras = cameras

    def forward(self, images: list[Tensor], state_BS: Tensor) -> Tensor:
        observation = dict(zip(self.cameras, images, strict=True))
        return self.policy.predict_action_chunk({**observation, "observation.state": state_BS})


def export_encoder(config: EncoderConfig, frames_BHWC: Tensor, path: Path) -> ExportedArtifact:
    """Export an encoder: uint8 frames in, tokens (B, G + h·w, D) out.

    Args:
        config: The encoder.
        frames_BHWC: Real camera frames, uint8; they fix the size the encoder works at and check the result.
        path: The file to write.

    Raises:
        UserError: The encoder cannot be built, or the artifact differs from the eager path.
    """
    encoder = VisionEncoder(config).eval()
    images = frames_to_images(frames_BHWC)
    with torch.no_grad():
        expected = encoder(images).flatten()
    camera = "observation.images.camera"
    height, width = (int(side) for side in frames_BHWC.shape[1:3])
    shell = ArtifactShell(
        _trace(_EncoderCore(encoder), [images], torch.zeros(len(images), 1)),
        [camera],
        [(height, width)],
        None,
        None,
        {camera: frames_BHWC[:1]},
        expected[:1],
    )
    metadata = {
        "kind": "encoder",
        "cameras": {camera: {"height": height, "width": width, "colour_order": "RGB"}},
        "encoder": {"name": config.name, "weights_hash": weights_hash(encoder.backbone)},
        "tokens": {"global": encoder.num_global, "grid": encoder.grid(height, width), "width": encoder.width},
        "versions": {"torch": torch.__version__},
    }
    return _save_checked(shell, metadata, path, {camera: frames_BHWC}, expected)


def export_policy(checkpoint: Path, observations: Mapping[str, Tensor], path: Path) -> ExportedArtifact:
    """Export a policy: uint8 frames and raw state in, unnormalised action chunk out.

    Args:
        checkpoint: A `pretrained_model` folder in LeRobot's format.
        observations: Real observations to check on: uint8 frames (B, H, W, 3) for each camera and
            `observation.state` (B, S).
        path: The file to write.

    Raises:
        UserError: The folder is no checkpoint, the observations do not fit it, or the artifact differs from the
            eager path.
    """
    from pixio_robot.deployment.lerobot_policy import open_policy

    opened = open_policy(checkpoint)
    cameras = list(opened.image_sizes)
    missing = [key for key in (*cameras, "observation.state") if key not in observations]
    if missing:
        raise UserError(
            f"The frames given for the check lack {', '.join(missing)}, which the policy reads; "
            f"give demonstrations of the same robot and cameras (demos=…)."
        )
    observed = {key: observations[key] for key in (*cameras, "observation.state")}
    expected = opened.eager(observed)
    images = [frames_to_images(observed[camera]) for camera in cameras]
    state = (observed["observation.state"] - opened.state[0]) / opened.state[1]
    shell = ArtifactShell(
        _trace(_PolicyCore(opened.policy, cameras), images, state),
        cameras,
        list(opened.image_sizes.values()),
        opened.state,
        opened.action,
        {key: value[:1] for key, value in observed.items()},
        expected[:1],
    )
    return _save_checked(shell, opened.metadata(), path, observed, expected)


def _trace(core: nn.Module, images: list[Tensor], state_BS: Tensor) -> torch.jit.ScriptModule:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shape checks become constants, which fixed sizes intend
        traced = torch.jit.trace(core.eval(), (images, state_BS), check_trace=False)
    assert isinstance(traced, torch.jit.ScriptModule)
    return traced


def _save_checked(
    shell: ArtifactShell, metadata: dict[str, Any], path: Path, observed: dict[str, Tensor], expected: Tensor
) -> ExportedArtifact:
    """Write the artifact and compare the file, loaded again, with the eager path; a failure leaves no file."""
    save_artifact(shell, metadata, path)
    module, metadata = load_artifact(path)
    scale = max(1.0, expected.abs().max().item())
    with torch.no_grad():
        together = (module(observed) - expected).abs().max().item() / scale
        one = (module({key: value[:1] for key, value in observed.items()}) - expected[:1]).abs().max().item() / scale
    difference = max(together, one)
    if not difference <= PARITY_TOLERANCE:
        path.unlink()
        raise UserError(
            f"The exported file differs from the policy by {difference:.1e} (allowed {PARITY_TOLERANCE:.0e}), so it "
            f"was not kept; this encoder cannot be traced."
        )
    return ExportedArtifact(path, metadata, difference, len(expected))
