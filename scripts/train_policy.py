"""Collect demonstrations, train a policy on an encoder, and measure its success rate in simulation.

With several processes: `torchrun --nproc-per-node 2 scripts/train_policy.py …`, or on GPUs `accelerate launch`; the
batch is shared among them.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pixio_robot.cli.entry_points import entry_point, given_fields, given_settings
from pixio_robot.encoders import EncoderConfig


@entry_point("train_policy")
def main(cfg: DictConfig) -> None:
    """Run the whole way; see configs/train_policy.yaml for every choice."""
    from pixio_robot.training import DemosConfig, EvaluationConfig, PolicyJob, TrainerConfig, run_policy_job
    from pixio_robot.training.policy.starting_point import described_by

    fields = OmegaConf.to_container(cfg)
    policy, encoder = fields["policy"], EncoderConfig(**fields["encoder"])
    if fields["start_from"] is not None:
        changes = [given_fields(cfg, group, "start_from") for group in ("policy", "encoder")]
        policy, encoder = described_by(Path(fields["start_from"]), *changes)
    run_policy_job(
        PolicyJob(
            encoder=encoder,
            policy=policy,
            env=fields["env"],
            demos=DemosConfig(**fields["demos"]),
            trainer=TrainerConfig(**fields["trainer"]),
            evaluation=EvaluationConfig(**fields["evaluation"]),
            seed=fields["seed"],
            output_root=fields["output_root"],
            start_from=fields["start_from"],
        ),
        resume=fields["resume"],
        run=fields["run"],
        given=given_settings(cfg),
    )


if __name__ == "__main__":
    main()
