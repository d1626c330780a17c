"""Pretrain a Pixio encoder as a masked autoencoder on a folder of images or on demonstrations."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pixio_robot.entry_points import entry_point


@entry_point("pretrain_encoder")
def main(cfg: DictConfig) -> None:
    """Open the images, pretrain, and say where the encoder is; see configs/pretrain_encoder.yaml."""
    from pixio_robot.pretraining.config import pretrain_config
    from pixio_robot.pretraining.job import open_images, run_job
    from pixio_robot.pretraining.objectives import Reconstruction

    fields = OmegaConf.to_container(cfg)
    run_job(
        pretrain_config(fields["pretraining"]),
        Reconstruction,
        lambda: open_images(fields["images"], Path(cfg.cache_dir)),
        Path(cfg.output_root, "pretrain_encoder"),
        cfg.resume,
    )


if __name__ == "__main__":
    main()
