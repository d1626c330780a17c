"""Policy training: cached features, the loop, checkpoints, and the job that runs the whole way."""

from pixio_robot.training.config import DemosConfig, EvaluationConfig, TrainerConfig
from pixio_robot.training.job import PolicyJob, run_policy_job
from pixio_robot.training.trainer import train

__all__ = ["DemosConfig", "EvaluationConfig", "PolicyJob", "TrainerConfig", "run_policy_job", "train"]
