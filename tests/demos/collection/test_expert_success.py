"""An expert's rate, and what becomes of it when it sees late."""

import numpy as np
from toy_expert_env import ToyExpertEnvConfig

from pixio_robot.demos.collection.expert_success import try_expert


def test_trials_are_those_of_the_seeds_in_their_order() -> None:
    config = ToyExpertEnvConfig(expert_fails_thirds=True)
    trials = try_expert(config, [4, 3, 0], workers=2)
    assert [(trial.seed, trial.success) for trial in trials] == [(4, False), (3, True), (0, True)]
    assert trials[0].steps == config.episode_length


def test_who_sees_late_swings_past_the_goal() -> None:
    at_once, late = (try_expert(ToyExpertEnvConfig(), range(8), delay=delay, workers=1) for delay in (0, 4))
    assert all(trial.success for trial in at_once)
    assert np.mean([trial.steps for trial in late]) > 2 * np.mean([trial.steps for trial in at_once])
