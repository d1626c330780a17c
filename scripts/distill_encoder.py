"""Distil any encoder into a smaller Pixio encoder on images of one's own."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pixio_robot.cli.entry_points import entry_point


@entry_point("distill_encoder")
def main(cfg: DictConfig) -> None:
    """Open the images, distil, and say where the encoder is; see configs/distill_encoder.yaml."""
    from pixio_robot.pretraining.config import config_from
    from pixio_robot.pretraining.job import run_job
    from pixio_robot.pretraining.objectives.distillation import Distillation, DistillConfig
    from pixio_robot.pretraining.sources import open_source

    fields = OmegaConf.to_container(cfg)
    run_job(
        config_from(DistillConfig, fields["distillation"]),
        Distillation,
        lambda: open_source(fields["images"], Path(cfg.cache_dir)),
        Path(cfg.output_root, "distill_encoder"),
        cfg.resume,
    )


if __name__ == "__main__":
    main()
