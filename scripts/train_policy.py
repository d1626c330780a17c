"""Collect demonstrations, train a policy on an encoder, and measure its success rate in simulation.

With several processes: `torchrun --nproc-per-node 2 scripts/train_policy.py …`, or on GPUs `accelerate launch`; the
batch is shared among them.
"""

from omegaconf import DictConfig, OmegaConf

from pixio_robot.encoders import EncoderConfig
from pixio_robot.entry_points import entry_point


@entry_point("train_policy")
def main(cfg: DictConfig) -> None:
    """Run the whole way; see configs/train_policy.yaml for every choice."""
    from pixio_robot.training import DemosConfig, EvaluationConfig, PolicyJob, TrainerConfig, run_policy_job

    fields = OmegaConf.to_container(cfg)
    run_policy_job(
        PolicyJob(
            encoder=EncoderConfig(**fields["encoder"]),
            policy=fields["policy"],
            env=fields["env"],
            demos=DemosConfig(**fields["demos"]),
            trainer=TrainerConfig(**fields["trainer"]),
            evaluation=EvaluationConfig(**fields["evaluation"]),
            seed=fields["seed"],
            output_root=fields["output_root"],
        ),
        resume=fields["resume"],
    )


if __name__ == "__main__":
    main()
