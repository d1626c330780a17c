"""Export a policy checkpoint, or an encoder alone, as one TorchScript file checked against the eager path."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from pixio_robot.encoders import EncoderConfig
from pixio_robot.entry_points import entry_point


@entry_point("export_torchscript")
def main(cfg: DictConfig) -> None:
    """Export; see configs/export_torchscript.yaml."""
    from pixio_robot.deployment.export import export_encoder, export_policy
    from pixio_robot.deployment.frames import check_frames, check_observations

    if cfg.checkpoint is None:
        output = Path(cfg.output or f"outputs/export/{cfg.encoder.name}.pt")
        artifact = export_encoder(EncoderConfig(**cfg.encoder), check_frames(cfg.frames), output)
    else:
        checkpoint = Path(cfg.checkpoint)
        output = Path(cfg.output or "outputs/export/policy.pt")
        artifact = export_policy(checkpoint, check_observations(checkpoint, cfg.frames), output)
    Console().print(
        f"{artifact.path} ({artifact.path.stat().st_size / 2**20:.1f} MiB): largest difference from the eager path "
        f"{artifact.difference:.1e} on {artifact.frames} real observations",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
