"""Export of policies and encoders, checked against the eager path before the file is kept.

Shape letters: N observations, O observation steps, H and W image size, S state size.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.deployment.artifact.artifact import write_atomically
from pixio_robot.deployment.artifact.verification import PARITY_TOLERANCE, difference_between
from pixio_robot.deployment.export.cores import EncoderCore, PolicyCore, check_precision, reduce_precision
from pixio_robot.deployment.export.forms import FORMS
from pixio_robot.deployment.export.shell import ShellLayout
from pixio_robot.encoders import EncoderConfig, VisionEncoder, frames_to_images, weights_hash

if TYPE_CHECKING:
    from pixio_robot.deployment.export.lerobot_policy import OpenedPolicy

_AT_ONCE = 8


@dataclass(frozen=True)
class ExportedArtifact:
    """What an export produced."""

    path: Path
    metadata: dict[str, Any]
    difference: float
    """Largest difference from the eager path on the checked frames."""
    frames: int
    """Number of frames it was checked on."""


@dataclass(frozen=True)
class ExportOptions:
    """How to export."""

    form: str = "torchscript"
    """`torchscript`, `pt2` (torch.export) or `onnx`."""
    precision: str = "float32"
    """Of the vision encoder: `float32`, `float16`, `bfloat16` or `int8` (dynamic)."""
    sampling_steps: int | None = None
    """DDIM steps of a diffusion policy; None keeps its own number."""
    state_names: list[str] | None = None
    """What the state's numbers are, for the metadata."""
    action_names: list[str] | None = None
    """What the action's numbers are, for the metadata."""
    action_space: str | None = None
    """What an action is, for the metadata, for example `joint positions in degrees`."""
    control_rate_hz: float | None = None
    """Steps per second of the demonstrations; None takes what the checkpoint says."""


def export_encoder(
    config: EncoderConfig, frames_NHWC: Tensor, path: Path, options: ExportOptions | None = None
) -> ExportedArtifact:
    """Export an encoder: uint8 frames in, tokens (B, G + h·w, D) out.

    Args:
        config: The encoder.
        frames_NHWC: Real camera frames, uint8; they fix the size the encoder works at and check the result.
        path: The file to write.
        options: How; None takes the defaults.

    Raises:
        UserError: The encoder cannot be built, or the artifact differs from the eager path.
    """
    options = options or ExportOptions()
    encoder = VisionEncoder(config).eval()
    devices = _check_options(options, encoder, path)
    camera = "observation.images.camera"
    height, width = (int(side) for side in frames_NHWC.shape[1:3])
    metadata = {
        "kind": "encoder",
        "policy": None,
        "state": None,
        "action": None,
        "noise": None,
        "observation_horizon": 1,
        "action_horizon": None,
        "executed_actions": None,
        "control_rate_hz": None,
        "sampling_steps": None,
        "normalisation": {},
        "encoder": {"name": config.name, "weights_hash": weights_hash(encoder.backbone)},
        "tokens": {"global": encoder.num_global, "grid": list(encoder.grid(height, width)), "width": encoder.width},
        "env": None,
        "versions": {"torch": torch.__version__},
        "devices": devices,
    }

    @torch.no_grad()
    def eager(observed: Mapping[str, Tensor]) -> Tensor:
        return encoder(frames_to_images(observed[camera])).flatten()

    layout = ShellLayout([camera], [(height, width)])
    return _export(eager, encoder, EncoderCore(encoder), layout, metadata, {camera: frames_NHWC}, path, options)


def export_policy(
    checkpoint: Path, observations: Mapping[str, Tensor], path: Path, options: ExportOptions | None = None
) -> ExportedArtifact:
    """Export a policy: uint8 frames and raw state in, unnormalised action chunk out.

    Args:
        checkpoint: A `pretrained_model` folder in LeRobot's format.
        observations: Real observations to check on, in the order of an episode: uint8 frames (N, [O,] H, W, 3) for
            each camera and `observation.state` (N, [O,] S), with an axis of steps where the policy reads several.
        path: The file to write.
        options: How; None takes the defaults.

    Raises:
        UserError: The folder is no checkpoint, the observations do not fit it, an option does not suit it, or the
            artifact differs from the eager path.
    """
    from pixio_robot.deployment.export.lerobot_policy import open_policy

    options = options or ExportOptions()
    return export_opened(open_policy(checkpoint, options.sampling_steps), observations, path, options)


def export_opened(
    opened: "OpenedPolicy", observations: Mapping[str, Tensor], path: Path, options: ExportOptions
) -> ExportedArtifact:
    """Export a policy that `open_policy` gives; see `export_policy`. Its encoder takes on the precision for good."""
    encoder: Any = opened.policy.encoder
    devices = _check_options(options, encoder, path)
    cameras = list(opened.image_sizes)
    observed = _fitting(observations, opened.image_sizes, opened.observation_steps)
    if opened.noise_shape is not None:
        rows = len(observed["observation.state"])
        observed["noise"] = torch.randn((rows, *opened.noise_shape), generator=torch.Generator().manual_seed(0))
    metadata = {**opened.metadata(), "devices": devices}
    metadata["control_rate_hz"] = options.control_rate_hz or metadata["control_rate_hz"]
    _name("state_names", options.state_names, metadata["state"])
    _name("action_names", options.action_names, metadata["action"])
    metadata["action"]["space"] = options.action_space or metadata["action"]["space"]
    layout = ShellLayout(
        cameras,
        list(opened.image_sizes.values()),
        opened.observation_steps,
        opened.state,
        opened.action,
        opened.noise_shape,
    )
    core = PolicyCore(opened.policy, cameras, opened.noise_shape is not None)
    return _export(opened.eager, encoder, core, layout, metadata, observed, path, options)


def _export(
    eager: Callable[[Mapping[str, Tensor]], Tensor],
    encoder: VisionEncoder,
    core: nn.Module,
    layout: ShellLayout,
    metadata: dict[str, Any],
    observed: dict[str, Tensor],
    path: Path,
    options: ExportOptions,
) -> ExportedArtifact:
    """Write the file, load it again, compare it with the eager path, and add the metadata; a failure leaves no file."""
    parts = _parts(observed)
    expected = torch.cat([eager(part) for part in parts])
    reduce_precision(encoder, options.precision)
    metadata = {
        **metadata,
        "form": options.form,
        "precision": options.precision,
        "cameras": [
            {
                "key": key,
                "height": height,
                "width": width,
                "colour_order": "RGB",
                "frame_sizes": "same_aspect" if options.form == "torchscript" else "exact",
            }
            for key, (height, width) in zip(layout.cameras, layout.sizes, strict=True)
        ],
    }
    if metadata["kind"] == "policy":
        metadata["action_horizon"] = int(expected.shape[1])
    allowed = PARITY_TOLERANCE[options.precision]
    golden = {key: value[:1].clone() for key, value in observed.items()}

    def write_and_compare(temporary: Path) -> tuple[dict[str, Any], float]:
        form = FORMS[options.form]
        form.write(temporary, core, layout, parts[0], golden, expected[:1].clone())
        module = form.open(temporary)
        with torch.no_grad():
            got = torch.cat([module(part) for part in parts])
            together = difference_between(got, expected, options.precision)
            alone = difference_between(module(golden), expected[:1], options.precision)
        difference = together + alone if math.isnan(together + alone) else max(together, alone)
        if not difference <= allowed:
            raise UserError(
                f"The exported file differs from the eager path by {difference:.1e} (allowed {allowed:.0e} in "
                f"{options.precision}), so it was not kept; "
                + ("this encoder cannot be exported." if options.precision == "float32" else "use another precision.")
            )
        parity = {"difference": difference, "observations": len(expected)}
        return form.seal(temporary, {**metadata, "parity": parity}), difference

    sealed, difference = write_atomically(path, write_and_compare)
    return ExportedArtifact(path, sealed, difference, len(expected))


def _check_options(options: ExportOptions, encoder: VisionEncoder, path: Path) -> list[str]:
    if options.form not in FORMS:
        raise UserError(f"Unknown format {options.form!r}. {nearest_name(options.form, FORMS)}")
    if options.precision not in FORMS[options.form].precisions:
        raise UserError(
            f"A file of format {options.form} holds {' or '.join(FORMS[options.form].precisions)}, not "
            f"{options.precision}: choose one of these, or format=torchscript."
        )
    if (options.form == "onnx") != (path.suffix == ".onnx"):  # by which readers tell them from the other forms
        raise UserError(f"{path} does not fit format={options.form}: files of onnx, and only these, end in .onnx.")
    return check_precision(options.precision, encoder)


def _fitting(
    observations: Mapping[str, Tensor], sizes: Mapping[str, tuple[int, int]], observation_steps: int
) -> dict[str, Tensor]:
    """Return the observations that the policy reads.

    Raises:
        UserError: One is missing, or frames have another size or history.
    """
    keys = (*sizes, "observation.state")
    missing = [key for key in keys if key not in observations]
    if missing:
        raise UserError(
            f"The frames given for the check lack {', '.join(missing)}, which the policy reads; "
            f"give demonstrations of the same robot and cameras (frames=…)."
        )
    history = (observation_steps,) if observation_steps > 1 else ()
    for key, size in sizes.items():
        found = tuple(observations[key].shape[1:])
        if found != (*history, *size, 3):
            raise UserError(
                f"{key} of the frames given for the check is {found}, but the policy was trained on "
                f"{(*history, *size, 3)}; give demonstrations of the same cameras (frames=…)."
            )
    return {key: observations[key] for key in keys}


def _name(option: str, names: list[str] | None, described: dict[str, Any]) -> None:
    if names is None:
        return
    if len(names) != described["size"]:
        raise UserError(
            f"{option} has {len(names)} names, but the policy has {described['size']}: give one for each number."
        )
    described["names"] = list(names)


def _parts(observed: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    rows = len(next(iter(observed.values())))
    starts = range(0, rows, _AT_ONCE)
    return [{key: value[start : start + _AT_ONCE] for key, value in observed.items()} for start in starts]
