"""Policy training: cached features, the loop, checkpoints, and the job that runs the whole way."""

from pixio_robot.training.config import DemosConfig, EvaluationConfig, PolicyJob, TrainerConfig

__all__ = ["DemosConfig", "EvaluationConfig", "PolicyJob", "TrainerConfig"]
