"""Pretrain a Pixio encoder as a masked autoencoder on images of any of the kinds in configs/images."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pixio_robot.cli.entry_points import entry_point


@entry_point("pretrain_encoder")
def main(cfg: DictConfig) -> None:
    """Open the images, pretrain, and say where the encoder is; see configs/pretrain_encoder.yaml."""
    from pixio_robot.pretraining.config import pretrain_config
    from pixio_robot.pretraining.job import run_job
    from pixio_robot.pretraining.objectives.reconstruction import Reconstruction
    from pixio_robot.pretraining.sources import open_source

    fields = OmegaConf.to_container(cfg)
    run_job(
        pretrain_config(fields["pretraining"]),
        Reconstruction,
        lambda: open_source(fields["images"], Path(cfg.cache_dir)),
        Path(cfg.output_root, "pretrain_encoder"),
        cfg.resume,
    )


if __name__ == "__main__":
    main()
