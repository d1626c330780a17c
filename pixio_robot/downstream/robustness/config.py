"""How policies are compared, as settings: read without torch."""

import dataclasses

from pixio_robot.common.settings import Count, Text, Whole, settings
from pixio_robot.training.config import EvaluationConfig, TrainerConfig


@settings(kw_only=True)
class RobustnessProtocol:
    """Policies trained on each encoder, rolled out on the same seeds, nominal and under changed looks."""

    envs: tuple[Text, ...] = ("robosuite_lift",)
    """Tasks: choices of configs/env; a table each."""
    policy: Text = "bc"
    """The policy of every row: a choice of configs/policy."""
    demonstrations: tuple[Count, ...] = (25,)
    """Numbers of demonstrations to train from, the first of one store; a table each."""
    perturbations: tuple[Text, ...] = ("light", "camera", "table_texture")
    """Changes of looks under which every policy is measured, too."""
    seeds: tuple[Whole, ...] = (0,)
    """Seeds of training; evaluation seeds are the same for all."""
    trainer: TrainerConfig = dataclasses.field(default_factory=lambda: TrainerConfig(augmented_copies=0))
    """How long and how fast to train."""
    evaluation: EvaluationConfig = dataclasses.field(default_factory=lambda: EvaluationConfig(videos=0))
    """How every policy is measured."""
