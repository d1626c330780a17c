"""Export a policy checkpoint, or an encoder alone, as one file checked against the eager path.

uv run scripts/export.py checkpoint=latest output=policy.pt
uv run scripts/export.py checkpoint=<pretrained_model> format=onnx precision=float16
uv run scripts/export.py encoder=pixio_small frames=outputs/demos/lift.zarr
"""

import dataclasses
from pathlib import Path
from typing import Literal

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, Place, Positive, Text, settings
from pixio_robot.encoders.config import EncoderConfig


@settings(kw_only=True)
class Export:
    """Settings of the job."""

    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """What is exported without a checkpoint."""
    checkpoint: Place | None = None
    """A pretrained_model folder; or a run's folder or name, or `latest`; null exports the encoder alone."""
    frames: Text | None = None
    """A DemoStore whose frames check the export; null takes the checkpoint's own demonstrations."""
    output: Place | None = None
    """The file to write; null names one under `<output_root>/export`."""
    output_root: Place = Path("outputs")
    """Folder in which runs are looked for."""
    format: Literal["torchscript", "pt2", "onnx"] = "torchscript"
    """`torchscript`, `pt2` (torch.export) or `onnx`."""
    precision: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    """Of the vision encoder; int8 is dynamic, for torchscript on the CPU."""
    sampling_steps: Count | None = None
    """DDIM steps of a diffusion policy; null keeps its own number."""
    state_names: tuple[Text, ...] | None = None
    """For the metadata: what the numbers of the state are, in their order."""
    action_names: tuple[Text, ...] | None = None
    """For the metadata: what the numbers of the action are, in their order."""
    action_space: Text | None = None
    """For the metadata, for example "absolute joint positions in degrees"; it says absolute, delta or velocity."""
    control_rate_hz: Positive | None = None
    """For the metadata; null takes the rate of the demonstrations."""


@entry_point("export", Export)
def main(settings: Export) -> None:
    """Export."""
    from pixio_robot.deployment.export.exporter import ExportOptions, export_encoder, export_policy
    from pixio_robot.deployment.export.formats import suffix_of
    from pixio_robot.deployment.export.observations import check_frames, demonstrations
    from pixio_robot.evaluation.checkpoints import find_checkpoint

    console, checkpoint = Console(), settings.checkpoint
    if checkpoint is not None:
        checkpoint = find_checkpoint(checkpoint, settings.output_root, console)
    options = ExportOptions(
        settings.format,
        settings.precision,
        settings.sampling_steps,
        list(settings.state_names) if settings.state_names else None,
        list(settings.action_names) if settings.action_names else None,
        settings.action_space,
        settings.control_rate_hz,
    )
    name = "policy" if checkpoint is not None else settings.encoder.name
    output = settings.output or settings.output_root / "export" / f"{name}{suffix_of(settings.format)}"
    if checkpoint is None:
        metadata = export_encoder(settings.encoder, check_frames(settings.frames), output, options)
    else:
        metadata = export_policy(checkpoint, demonstrations(checkpoint, settings.frames), output, options)
    console.print(
        f"{output} ({output.stat().st_size / 2**20:.1f} MiB): difference from the eager path "
        f"{metadata['parity']['difference']:.1e} on {metadata['parity']['observations']} real observations",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
