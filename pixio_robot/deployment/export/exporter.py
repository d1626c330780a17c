"""Export of policies and encoders, checked against the eager path before the file is kept.

Shape letters: N observations, O observation steps, H and W image size, S state size.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.storage.files import atomic_path
from pixio_robot.demos import DemoStore
from pixio_robot.deployment.artifact.metadata import KEYS
from pixio_robot.deployment.artifact.validation import fault_in
from pixio_robot.deployment.export.cores import EncoderCore, PolicyCore, Precision, reduce_precision
from pixio_robot.deployment.export.formats import FORMATS, Content, suffix_of
from pixio_robot.deployment.export.observations import episode_observations, largest_steps
from pixio_robot.deployment.export.shell import ShellLayout
from pixio_robot.deployment.runtime.holding import kind_of
from pixio_robot.deployment.verification import difference_between, largest_difference, tolerance_of
from pixio_robot.encoders import EncoderConfig, VisionEncoder, weights_hash
from pixio_robot.encoders.torchscript import TORCHSCRIPT
from pixio_robot.images.preprocessing import frames_to_images

if TYPE_CHECKING:
    from pixio_robot.deployment.export.lerobot_policy import OpenedPolicy

_AT_ONCE = 8


@dataclass(frozen=True)
class ExportOptions:
    """How to export."""

    format: str = "torchscript"
    """`torchscript`, `pt2` (torch.export) or `onnx`."""
    precision: Precision = "float32"
    """Of the vision encoder: `float32`, `float16`, `bfloat16` or `int8` (dynamic)."""
    sampling_steps: int | None = None
    """DDIM steps of a diffusion policy; None keeps its own number."""
    state_names: Sequence[str] | None = None
    """What the state's numbers are, for the metadata."""
    action_names: Sequence[str] | None = None
    """What the action's numbers are, for the metadata."""
    action_space: str | None = None
    """What an action is, for the metadata, for example `absolute joint positions in degrees`."""
    control_rate_hz: float | None = None
    """Steps per second; None takes the demonstrations'."""


def export_encoder(
    config: EncoderConfig, frames_NHWC: Tensor, path: Path, options: ExportOptions | None = None
) -> dict[str, Any]:
    """Export an encoder: uint8 frames in, tokens (B, G + h·w, D) out.

    Args:
        config: The encoder.
        frames_NHWC: Real camera frames, uint8; they fix the size the encoder works at and check the result.
        path: The file to write.
        options: How; None takes the defaults.

    Returns:
        The metadata, whose `parity` says how the file compares with the eager path.

    Raises:
        UserError: The encoder cannot be built, or the artifact differs from the eager path.
    """
    camera = "observation.images.camera"
    height, width = (int(side) for side in frames_NHWC.shape[1:3])
    encoder = VisionEncoder(config, frame_size=(height, width)).eval()
    metadata = {
        "kind": "encoder",
        "observation_horizon": 1,
        "normalisation": {},
        "encoder": {"name": config.name, "weights_hash": weights_hash(encoder.backbone)},
        "tokens": {"global": encoder.num_global, "grid": list(encoder.grid(height, width)), "width": encoder.width},
        "versions": {"torch": torch.__version__},
    }

    @torch.no_grad()
    def eager(observed: Mapping[str, Tensor]) -> Tensor:
        return encoder(frames_to_images(observed[camera])).flatten()

    layout = ShellLayout({camera: (height, width)})
    export = _Export(eager, encoder, EncoderCore(encoder), layout, metadata, {camera: frames_NHWC})
    return export.write(path, options or ExportOptions())


def export_policy(
    checkpoint: Path, store: DemoStore, path: Path, options: ExportOptions | None = None
) -> dict[str, Any]:
    """Export a policy: uint8 frames and raw state in, unnormalised action chunk out.

    Args:
        checkpoint: A `pretrained_model` folder in LeRobot's format.
        store: Demonstrations of the same robot and cameras; the result is checked on their first episode.
        path: The file to write.
        options: How; None takes the defaults.

    Returns:
        The metadata, whose `parity` says how the file compares with the eager path.

    Raises:
        UserError: The folder is no checkpoint, the demonstrations do not fit it, an option does not suit it, or the
            artifact differs from the eager path.
    """
    from pixio_robot.deployment.export.lerobot_policy import open_policy

    options = options or ExportOptions()
    options = replace(options, control_rate_hz=options.control_rate_hz or float(store.fps))
    opened = replace(open_policy(checkpoint, options.sampling_steps), names=store.names)
    observations = episode_observations(store, opened.layout.observation_steps)
    return export_opened(opened, observations, path, options, largest_steps(store))


def export_opened(
    opened: "OpenedPolicy",
    observations: Mapping[str, Tensor],
    path: Path,
    options: ExportOptions,
    steps: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Export a policy that `open_policy` gives, checked on observations (N, [O,] …) in an episode's order.

    See `export_policy`. The policy's encoder takes on the precision for good. `steps` are those of `largest_steps`.
    """
    metadata, layout, encoder = opened.metadata(), opened.layout, opened.policy.encoder
    metadata["action"] |= steps or {}
    assert isinstance(encoder, VisionEncoder)
    metadata["control_rate_hz"] = options.control_rate_hz or metadata["control_rate_hz"]
    if options.action_space is not None and kind_of(options.action_space) is None:
        raise UserError(
            f"action_space={options.action_space!r} does not say what an action is: write absolute (a place), delta (a "
            f"motion from where the robot is) or velocity into it, for example 'absolute joint positions in degrees'."
        )
    metadata["action"]["space"] = options.action_space or metadata["action"]["space"]
    for key, names in (("state", options.state_names), ("action", options.action_names)):
        size = metadata[key]["size"]
        if names is not None and len(names) != size:
            raise UserError(f"{key}_names has {len(names)} names, but the policy has {size}: give one for each number.")
        metadata[key]["names"] = metadata[key]["names"] if names is None else list(names)
    core = PolicyCore(opened.policy, list(layout.image_sizes), layout.noise_shape is not None)
    observed = opened.observed(observations, seed=0)
    return _Export(opened.eager, encoder, core, layout, metadata, observed).write(path, options)


@dataclass(frozen=True)
class _Export:
    """What is exported, whatever it is."""

    eager: Callable[[Mapping[str, Tensor]], Tensor]
    encoder: VisionEncoder
    core: nn.Module
    layout: ShellLayout
    metadata: dict[str, Any]
    observed: dict[str, Tensor]

    def write(self, path: Path, options: ExportOptions) -> dict[str, Any]:
        """Write the file, load it again, compare it with the eager path, and add the metadata.

        Raises:
            UserError: The options do not go together, or the file differs; there is no file then.
        """
        _check_options(options, self.encoder, path)
        format_ = FORMATS[options.format]
        rows = len(next(iter(self.observed.values())))
        parts = [
            {key: value[start : start + _AT_ONCE] for key, value in self.observed.items()}
            for start in range(0, rows, _AT_ONCE)
        ]
        expected = torch.cat([self.eager(part) for part in parts])
        golden = {key: value[:1].clone() for key, value in self.observed.items()}
        reduce_precision(self.encoder, options.precision)

        with atomic_path(path) as unfinished:
            format_.write(unfinished, Content(self.core, self.layout, golden, expected[:1].clone()))
            module = format_.open(unfinished)
            with torch.no_grad():
                got = torch.cat([module(part) for part in parts])
                together = difference_between(got, expected, options.precision)
                alone = difference_between(module(golden), expected[:1], options.precision)
            difference = together + alone if math.isnan(together + alone) else max(together, alone)
            allowed = tolerance_of(options.format, options.precision)
            if not difference <= allowed:
                other = "format" if options.precision == "float32" else "precision"
                kind = self.metadata["kind"]
                names = self.metadata["action"]["names"] if kind == "policy" else None
                raise UserError(
                    f"The exported file differs from the eager path by {difference:.1e} (allowed {allowed:.0e} for "
                    f"{options.format} in {options.precision}): {largest_difference(got, expected, kind, names)}. It was "
                    f"not kept: try another {other}."
                )
            metadata = self._metadata(options, {"difference": difference, "observations": rows})
            if metadata["kind"] == "policy":
                metadata["action_horizon"] = int(expected.shape[1])
            fault = fault_in(metadata)
            if fault is not None:
                raise UserError(f"{path} was not kept, since its metadata would be wrong ({fault}): mend that first.")
            return format_.seal(unfinished, metadata)

    def _metadata(self, options: ExportOptions, parity: dict[str, Any]) -> dict[str, Any]:
        cameras = [
            {
                "key": key,
                "height": height,
                "width": width,
                "colour_order": "RGB",
                "frame_sizes": "same_aspect" if options.format == "torchscript" else "exact",
            }
            for key, (height, width) in self.layout.image_sizes.items()
        ]
        return {
            **dict.fromkeys(sorted(KEYS)),
            **self.metadata,
            "cameras": cameras,
            "form": options.format,
            "precision": options.precision,
            "devices": ["cpu"] if options.precision == "int8" else ["cpu", "cuda"],
            "parity": parity,
        }


def _check_options(options: ExportOptions, encoder: VisionEncoder, path: Path) -> None:
    suffix = suffix_of(options.format)
    if options.precision not in get_args(Precision):
        raise UserError(
            f"Unknown precision {options.precision!r}. {nearest_name(options.precision, get_args(Precision))}"
        )
    precisions = FORMATS[options.format].precisions
    if options.precision not in precisions:
        raise UserError(
            f"A file of format {options.format} holds {' or '.join(precisions)}, not {options.precision}: choose one of "
            f"these, or format=torchscript."
        )
    if (suffix == ".onnx") != (path.suffix == ".onnx"):  # by which readers tell them from the other formats
        raise UserError(f"{path} does not fit format={options.format}: files of onnx, and only these, end in .onnx.")
    if options.precision != "float32" and encoder.config.name == TORCHSCRIPT:
        raise UserError("A TorchScript encoder keeps the precision it was written in: leave precision=float32.")
