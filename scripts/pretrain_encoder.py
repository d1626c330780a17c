"""Pretrain a Pixio encoder as a masked autoencoder on images of any of the kinds in configs/images."""

from omegaconf import DictConfig, OmegaConf

from pixio_robot.cli.entry_points import entry_point, given_settings


@entry_point("pretrain_encoder")
def main(cfg: DictConfig) -> None:
    """Open the images, pretrain, and say where the encoder is; see configs/pretrain_encoder.yaml."""
    from pixio_robot.pretraining.config import pretrain_config
    from pixio_robot.pretraining.job import PretrainingJob, run_job
    from pixio_robot.pretraining.objectives.reconstruction import Reconstruction

    fields = OmegaConf.to_container(cfg)
    job = PretrainingJob(
        "pretraining",
        pretrain_config(fields["pretraining"]),
        fields["images"],
        fields["cache_dir"],
        fields["output_root"],
    )
    run_job(job, Reconstruction, "pretrain_encoder", fields["resume"], run=fields["run"], given=given_settings(cfg))


if __name__ == "__main__":
    main()
