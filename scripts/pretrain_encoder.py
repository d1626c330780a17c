"""Pretrain a Pixio encoder as a masked autoencoder on a folder of images or on demonstrations."""

from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pixio_robot.entry_points import entry_point
from pixio_robot.errors import UserError


@entry_point("pretrain_encoder")
def main(cfg: DictConfig) -> None:
    """Open the images, pretrain, and say where the encoder is; see configs/pretrain_encoder.yaml."""
    from pixio_robot.pretraining.config import pretrain_config
    from pixio_robot.pretraining.sources import demo_images, folder_images
    from pixio_robot.pretraining.trainer import pretrain

    fields = OmegaConf.to_container(cfg)
    config = pretrain_config(fields["pretraining"])
    if cfg.resume and not Path(cfg.resume).is_dir():
        raise UserError(f"There is no run at {cfg.resume}: give the folder of an interrupted run as resume=…")
    images = {"folder": folder_images, "demos": demo_images}[fields["images"].pop("kind")]
    source = images(Path(fields["images"].pop("path")), Path(cfg.cache_dir), **fields["images"])
    started = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    output_dir = Path(cfg.resume or f"{cfg.output_root}/pretrain_encoder/{started}")
    print(f"{len(source)} images, output in {output_dir}", flush=True)
    print(f"encoder: {pretrain(config, source, output_dir, resume=bool(cfg.resume))}")


if __name__ == "__main__":
    main()
