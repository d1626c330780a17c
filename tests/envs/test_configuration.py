"""What LeRobot sees of the environment: discovery, features, vectorised environments, its own rollout."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_scripts import run_python
from lerobot.envs.factory import make_env
from lerobot.envs.utils import NEW_ROLLOUT_OPTION, close_envs, env_to_policy_features, preprocess_observation
from lerobot.scripts.lerobot_eval import eval_policy
from lerobot_env_pixio import RobosuiteEnvConfig


def test_lerobot_discovers_the_plugin_and_a_headless_terminal_stays_clean() -> None:
    """In a fresh interpreter, as a headless user would start it."""
    code = """
import sys
from lerobot.envs.configs import EnvConfig
from lerobot.utils.import_utils import register_third_party_plugins
assert "pixio_robosuite" not in EnvConfig.get_known_choices()
register_third_party_plugins()
config = EnvConfig.get_choice_class("pixio_robosuite")(image_size=16)
env = config.make_env()
print(config.type, [name for name in ("mujoco", "robosuite", "OpenGL", "numba") if name in sys.modules])
env.reset(seed=0)
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert (result.stdout, result.stderr) == ("pixio_robosuite []\n", "")


def test_missing_gl_is_said_in_one_sentence(tmp_path: Path) -> None:
    code = """
from lerobot_env_pixio import RobosuiteEnvConfig
try:
    RobosuiteEnvConfig().make_env().reset(seed=0)
except ValueError as error:
    print(error)
"""
    # libglvnd finds the EGL drivers through this folder: an empty one is a machine without any.
    environment = {"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path)}
    result = run_python("-c", code, cwd=tmp_path, environment=environment)
    assert result.stderr == ""
    assert result.stdout.startswith("no usable OpenGL")
    assert "libegl1 libgl1 libgl1-mesa-dri" in result.stdout
    assert "MUJOCO_GL=egl" in result.stdout


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("task", "lft", "unknown task 'lft': did you mean 'Lift'?"),
        ("robot", "panda", "unknown robot 'panda': did you mean 'Panda'?"),
        ("render_profile", "fas", "unknown render profile 'fas': did you mean 'fast'?"),
        ("camera_names", ["agentveiw"], "unknown camera 'agentveiw': did you mean 'agentview'?"),
    ],
)
def test_unknown_names_offer_the_nearest(field: str, value: object, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + sentence.replace("?", r"\?")):
        RobosuiteEnvConfig(**{field: value})


def test_features_match_the_observations() -> None:
    config = RobosuiteEnvConfig(image_size=32, camera_names=["frontview", "agentview"])
    env = config.make_env()
    observation = preprocess_observation(env.reset(seed=0)[0])
    features = env_to_policy_features(config)
    assert set(features) == {*observation, "action"}
    for key, value in observation.items():
        assert tuple(value.shape[1:]) == features[key].shape, key
    assert features["action"].shape == env.action_space.shape
    env.close()


@pytest.fixture(scope="module", params=[False, True], ids=["sync", "async"])
def vec_env(request: pytest.FixtureRequest):
    config = RobosuiteEnvConfig(image_size=32, episode_length=60)
    envs = make_env(config, n_envs=2, use_async_envs=request.param)
    assert list(envs) == ["pixio_robosuite"]
    assert list(envs["pixio_robosuite"]) == [0]
    yield envs["pixio_robosuite"][0]
    close_envs(envs)


def test_vectorised_episodes_are_those_of_the_single_environment(vec_env) -> None:
    config = RobosuiteEnvConfig(image_size=32, episode_length=60)
    seeds = [7, 8]
    experts = [config.make_expert(seed) for seed in seeds]
    single = config.make_env()

    expected = []
    for seed, expert in zip(seeds, experts, strict=True):
        observation, info = single.reset(seed=seed)
        expert.reset(single)
        states, ended = [observation["agent_pos"]], False
        while not ended:
            observation, _, terminated, ended, info = single.step(expert.act(observation, info))
            ended = ended or terminated
            states.append(observation["agent_pos"])
        assert info["is_success"]
        expected.append(np.stack(states))
    single.close()

    observations, infos = vec_env.reset(seed=seeds, options={NEW_ROLLOUT_OPTION: True})
    for expert in experts:
        expert.reset(vec_env)
    states, ended_at = [[], []], [None, None]
    for step in range(60):
        actions = []
        for i, expert in enumerate(experts):
            if ended_at[i] is None:
                states[i].append(observations["agent_pos"][i])
            actions.append(
                expert.act({"agent_pos": observations["agent_pos"][i]}, {"object_pose": infos["object_pose"][i]})
            )
        observations, _, terminated, _, infos = vec_env.step(np.stack(actions))
        for i in range(2):
            if terminated[i] and ended_at[i] is None:
                ended_at[i] = step
                assert infos["is_success"][i]
                states[i].append(observations["agent_pos"][i])
        if None not in ended_at:
            break
    for i in range(2):
        np.testing.assert_array_equal(np.stack(states[i]), expected[i])


class _StandStill(torch.nn.Module):
    """The least that LeRobot's rollout asks of a policy."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict] = []

    def reset(self) -> None:
        self.seen.clear()

    def select_action(self, batch: dict) -> torch.Tensor:
        self.seen.append(batch)
        return torch.zeros(len(batch["observation.state"]), 7)


@pytest.mark.parametrize("use_async_envs", [False, True], ids=["sync", "async"])
def test_lerobots_evaluation_runs(use_async_envs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lerobot.scripts.lerobot_eval.PreTrainedPolicy", _StandStill)
    config = RobosuiteEnvConfig(image_size=32, episode_length=3)
    envs = make_env(config, n_envs=2, use_async_envs=use_async_envs)
    policy = _StandStill()
    result = eval_policy(
        envs["pixio_robosuite"][0],
        policy,
        *config.get_env_processors(),
        lambda observation: observation,
        lambda action: action,
        n_episodes=2,
        max_episodes_rendered=1,
        videos_dir=tmp_path,
        start_seed=100_000,
    )
    close_envs(envs)
    assert [episode["seed"] for episode in result["per_episode"]] == [100_000, 100_001]
    assert [episode["success"] for episode in result["per_episode"]] == [False, False]
    assert len(policy.seen) == 3
    assert policy.seen[0]["task"] == ["lift the red cube off the table"] * 2
    assert policy.seen[0]["observation.images.agentview"].shape == (2, 3, 32, 32)
    assert list(tmp_path.glob("*.mp4"))
