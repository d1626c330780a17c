"""Distil any encoder into a smaller Pixio encoder on images of one's own."""

from omegaconf import DictConfig, OmegaConf

from pixio_robot.cli.entry_points import entry_point, given_settings


@entry_point("distill_encoder")
def main(cfg: DictConfig) -> None:
    """Open the images, distil, and say where the encoder is; see configs/distill_encoder.yaml."""
    from pixio_robot.pretraining.config import config_from
    from pixio_robot.pretraining.job import PretrainingJob, run_job
    from pixio_robot.pretraining.objectives.distillation import Distillation, DistillConfig

    fields = OmegaConf.to_container(cfg)
    job = PretrainingJob(
        "distillation",
        config_from(DistillConfig, fields["distillation"]),
        fields["images"],
        fields["cache_dir"],
        fields["output_root"],
    )
    run_job(job, Distillation, "distill_encoder", fields["resume"], run=fields["run"], given=given_settings(cfg))


if __name__ == "__main__":
    main()
