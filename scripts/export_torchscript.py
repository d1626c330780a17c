"""Export a policy checkpoint, or an encoder alone, as one file checked against the eager path.

uv run scripts/export_torchscript.py checkpoint=<pretrained_model folder> output=policy.pt
"""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.encoders import EncoderConfig


@entry_point("export_torchscript")
def main(cfg: DictConfig) -> None:
    """Export; see configs/export_torchscript.yaml."""
    from pixio_robot.deployment.export.exporter import ExportOptions, export_encoder, export_policy
    from pixio_robot.deployment.export.formats import suffix_of
    from pixio_robot.deployment.export.observations import check_frames, demonstrations

    checkpoint = None if cfg.checkpoint is None else Path(cfg.checkpoint)
    options = ExportOptions(
        cfg.format,
        cfg.precision,
        cfg.sampling_steps,
        list(cfg.state_names) if cfg.state_names else None,
        list(cfg.action_names) if cfg.action_names else None,
        cfg.action_space,
        cfg.control_rate_hz,
    )
    name = "policy" if checkpoint is not None else cfg.encoder.name
    output = Path(cfg.output or f"outputs/export/{name}{suffix_of(cfg.format)}")
    if checkpoint is None:
        metadata = export_encoder(EncoderConfig(**cfg.encoder), check_frames(cfg.frames), output, options)
    else:
        metadata = export_policy(checkpoint, demonstrations(checkpoint, cfg.frames), output, options)
    Console().print(
        f"{output} ({output.stat().st_size / 2**20:.1f} MiB): difference from the eager path "
        f"{metadata['parity']['difference']:.1e} on {metadata['parity']['observations']} real observations",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
