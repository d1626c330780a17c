"""Several tasks as one environment: the seed decides which, and an episode is the task's own."""

import dataclasses

import numpy as np
import pytest
from lerobot_env_pixio import MetaworldEnvConfig, RobosuiteEnvConfig
from lerobot_env_pixio.simulators.metaworld import TASKS

from pixio_robot.common.errors import UserError
from pixio_robot.environments import env_config_from

TWO = MetaworldEnvConfig(task="reach-v3, drawer-close-v3", image_size=32, camera_names=["corner2"])


def test_each_seeds_episode_is_that_of_its_task_alone() -> None:
    assert TWO.task_descriptions == [TASKS["reach-v3"], TASKS["drawer-close-v3"]]
    mixture = TWO.make_env()
    for seed, name in ((3, "drawer-close-v3"), (4, "reach-v3")):
        config = dataclasses.replace(TWO, task=name)
        alone = config.make_env()
        expert, own = TWO.make_expert(seed), config.make_expert(seed)
        (seen, info), (expected, told) = mixture.reset(seed=seed), alone.reset(seed=seed)
        assert (mixture.task, mixture.task_description) == (name, TASKS[name])
        expert.reset(mixture)
        own.reset(alone)
        mixture.render_observations = alone.render_observations = False
        ended = False
        while not ended:
            action = expert.act(seen, info)
            np.testing.assert_array_equal(action, own.act(expected, told))
            seen, *_, info = mixture.step(action)
            expected, _, terminated, truncated, told = alone.step(action)
            ended = terminated or truncated
            np.testing.assert_array_equal(seen["agent_pos"], expected["agent_pos"])
        assert info["is_success"]
        np.testing.assert_array_equal(mixture.render(), alone.render())
        alone.close()
    mixture.close()


def test_ten_tasks_have_a_name_and_wrong_ones_are_refused() -> None:
    config = MetaworldEnvConfig(task="MT10")
    assert len(set(config.task_descriptions)) == 10
    for task, sentence in (
        ("reach-v3,drawer-clos-v3", "drawer-close-v3"),
        ("reach-v3,reach-v3", "comes twice"),
    ):
        with pytest.raises(UserError, match=sentence):
            env_config_from({"type": "pixio_metaworld", "task": task})
    both = RobosuiteEnvConfig(task="Lift,Stack")
    assert both.features == RobosuiteEnvConfig(task="Lift").features
