"""A checkpoint that LeRobot's own tools load for an environment: whether that is the one it was trained in."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from lerobot.policies import make_policy
from lerobot.policies.factory import make_policy_config
from lerobot_env_pixio import MetaworldEnvConfig, RobosuiteEnvConfig
from lerobot_env_pixio.configuration import PixioEnvConfig
from tiny_policies import TINY

from pixio_robot.common import worlds
from pixio_robot.common.errors import UserError

LIFT: dict[str, Any] = {"image_size": 32, "camera_names": ["agentview"]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of Lift that was never trained, with what a training notes beside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    env = RobosuiteEnvConfig(**LIFT)
    config = make_policy_config("pixio_bc", device="cpu", encoder_weights="random", neck_width=4, **TINY["pixio_bc"])
    make_policy(cfg=config, env_cfg=env).save_pretrained(folder)
    (folder / worlds.RUN_FILE).write_text(json.dumps({"env": env.described(), "versions": {}}))
    return folder


def load(checkpoint: Path, env: PixioEnvConfig) -> None:
    """Do as `lerobot-eval`: environments first, then the policy for them."""
    from lerobot.configs import PreTrainedConfig

    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.pretrained_path = checkpoint
    for suite in env.create_envs(n_envs=1).values():
        for each in suite.values():
            each.close()
    make_policy(cfg=config, env_cfg=env)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"episode_length": 7, "perturbation": "light"}, None),  # meant to vary
        ({"task": "Stack"}, "task Lift then, Stack now"),
        (
            {"robot": "Sawyer", "render_profile": "standard"},
            "render profile lite then, standard now; robot Panda then, Sawyer",
        ),
    ],
)
def test_another_task_robot_or_look_is_said_once(checkpoint, caplog, changes, said):
    worlds._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="pixio_robot"):
        for _ in range(2):
            load(checkpoint, RobosuiteEnvConfig(**LIFT | changes))
    messages = [record.getMessage() for record in caplog.records if "trained" in record.getMessage()]
    assert len(messages) == (said is not None)
    assert said is None or (said in messages[0] and str(checkpoint) in messages[0])


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (RobosuiteEnvConfig(**LIFT, fps=10), "was trained at 20 Hz, and the environment runs at 10 Hz"),
        (
            MetaworldEnvConfig(image_size=32),
            r"does not fit this environment: .*action is of shape \(4,\), in training of shape \(7,\)",
        ),
        (
            RobosuiteEnvConfig(**LIFT | {"image_size": 64}),
            r"observation\.images\.agentview is of shape \(3, 64, 64\), in training of shape \(3, 32, 32\)",
        ),
    ],
)
def test_where_a_rollout_would_mean_nothing_none_begins(checkpoint, env, said):
    with pytest.raises(UserError, match=said):
        load(checkpoint, env)
