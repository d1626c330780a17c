"""Meta-World, ALOHA and PushT: the same episodes as the packages that they come from, and experts that solve them."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from lerobot.envs.factory import make_env
from lerobot.envs.utils import close_envs, env_to_policy_features, preprocess_observation
from lerobot_env_pixio import AlohaEnvConfig, MetaworldEnvConfig, PushTEnvConfig
from lerobot_env_pixio.configuration import PixioEnvConfig
from lerobot_env_pixio.experts.aloha import Kinematics
from lerobot_env_pixio.simulators.camera_env import CameraEnv

from pixio_robot.deployment.runtime.holding import action_kinds, hold_action

CONFIGS = [
    MetaworldEnvConfig(task="drawer-open-v3", image_size=32),
    AlohaEnvConfig(image_size=32),
    PushTEnvConfig(image_size=32),
]


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: config.type)
def config_and_env(request: pytest.FixtureRequest):
    env = request.param.make_env()
    yield request.param, env
    env.close()


def demonstrate(config: PixioEnvConfig, env: CameraEnv, seed: int) -> tuple[np.ndarray, bool]:
    """Return the actions of the expert's episode, and whether it succeeded."""
    expert = config.make_expert(seed)  # pyright: ignore[reportAttributeAccessIssue] (not PushT's)
    observation, info = env.reset(seed=seed)
    expert.reset(env)
    actions, ended, terminated = [], False, False
    env.render_observations = False
    while not ended:
        actions.append(expert.act(observation, info))
        assert env.action_space.contains(actions[-1])
        observation, _, terminated, truncated, info = env.step(actions[-1])
        ended = terminated or truncated
    env.render_observations = True
    assert info["is_success"] == terminated
    return np.stack(actions), terminated


def play(env: gymnasium.Env, seed: int, actions: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """Return proprioception and rewards of an episode's start."""
    observation, _ = env.reset(seed=seed)
    states, rewards = [observation["agent_pos"]], []
    for action in actions:
        observation, reward, *_ = env.step(action)
        states.append(observation["agent_pos"])
        rewards.append(float(reward))
    return states, rewards


def near_rest(env: CameraEnv, steps: int) -> np.ndarray:
    """Return random actions that keep a robot near where its episode starts."""
    start, _ = env.reset(seed=0)
    size = env.action_space.shape
    noise = np.random.default_rng(0).uniform(-1, 1, (steps, *size)).astype(np.float32)
    if env.action_space.shape == start["agent_pos"].shape and not np.all(env.action_space.low == -1):
        noise = start["agent_pos"] + 0.1 * noise
    return np.clip(noise, env.action_space.low, env.action_space.high)


def test_contract(config_and_env: tuple[PixioEnvConfig, CameraEnv]) -> None:
    """Gymnasium's checks, LeRobot's features, episodes from seeds, frames on demand, truncation."""
    config, env = config_and_env
    env.action_space.seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env, skip_render_check=True)
    messages = [str(warning.message) for warning in caught if "symmetric and normalized" not in str(warning.message)]
    assert messages == []

    observation, info = env.reset(seed=5)
    assert info["is_success"] is False
    features = env_to_policy_features(config)
    seen = preprocess_observation(observation)
    assert set(features) == {*seen, "action"}
    for key, value in seen.items():
        assert tuple(value.shape[1:]) == features[key].shape, key
    assert features["action"].shape == env.action_space.shape
    assert env.metadata["render_fps"] == config.fps
    assert env.render().shape == (32, 32 * len(config.camera_names), 3)

    actions = near_rest(env, 6)
    first, rewards = play(env, 5, actions)
    play(env, 6, actions)
    env.render_observations = False
    again, rewards_again = play(env, 5, actions)
    env.render_observations = True
    np.testing.assert_array_equal(first, again)
    assert rewards == rewards_again
    knowledge = [np.concatenate([np.ravel(value) for value in env.reset(seed=seed)[1].values()]) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(knowledge[0], knowledge[1])
    assert not np.array_equal(knowledge[0], knowledge[2])


def test_a_simulation_that_breaks_ends_the_episode_aloud() -> None:
    """ALOHA's arms thrown across their whole range: a failure with a true observation, and the next episode is whole."""
    env = AlohaEnvConfig(image_size=16).make_env()
    env.render_observations = False
    before, _ = env.reset(seed=3)
    rng, broken = np.random.default_rng(0), 0
    for seed in range(12):
        env.reset(seed=seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(6):
                observation, _, terminated, truncated, info = env.step(
                    rng.uniform(env.action_space.low, env.action_space.high)
                )
                assert env.observation_space["agent_pos"].contains(observation["agent_pos"])
                if truncated:
                    assert not terminated and not info["is_success"]
                    assert any("became unstable in step" in str(warning.message) for warning in caught)
                    broken += 1
                    break
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(before["agent_pos"], again["agent_pos"])
    *_, truncated, _ = env.step(before["agent_pos"])
    env.close()
    assert broken and not truncated


def test_a_robot_that_holds_stays(config_and_env: tuple[PixioEnvConfig, CameraEnv]) -> None:
    """What an artifact says of the action space is enough for the runtime's hold to be one."""
    _, env = config_and_env
    actions = near_rest(env, 6)
    for action in actions:
        env.step(action)
    kinds = action_kinds(env.control_mode, env.action_names, len(env.action_names))
    assert kinds is not None
    hold = hold_action(kinds, actions[-1])
    assert hold is not None
    assert hold[-1] == actions[-1][-1]  # a gripper's command, or a place: it stays
    env.render_observations = False
    places = [env.step(hold)[0]["agent_pos"] for _ in range(80)]  # Meta-World's fingers take 0.6 s to close
    env.render_observations = True
    ranges = env.observation_space["agent_pos"].high - env.observation_space["agent_pos"].low
    assert (np.abs(places[-1] - places[-10]) < 1e-3 * ranges).all()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.type)
def test_episodes_end_after_their_length_in_lerobots_vector(config: PixioEnvConfig) -> None:
    envs = make_env(type(config)(task=config.task, image_size=16, episode_length=2), n_envs=1)
    vector = envs[config.type][0]
    vector.reset(seed=[0])
    action = vector.action_space.sample()
    truncated = [bool(vector.step(action)[3][0]) for _ in range(2)]
    assert truncated == [False, True]
    assert vector.call("task_description")[0]
    close_envs(envs)


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (MetaworldEnvConfig, {"task": "draw-open-v3"}, "unknown task 'draw-open-v3': did you mean 'drawer-open-v3'?"),
        (MetaworldEnvConfig, {"camera_names": ["corner9"]}, "unknown camera 'corner9': did you mean 'corner"),
        (MetaworldEnvConfig, {"fps": 20}, "Meta-World is controlled at 80 Hz and nothing else"),
        (MetaworldEnvConfig, {"episode_length": 501}, "Meta-World's episodes end after 500 steps"),
        (AlohaEnvConfig, {"task": "insert"}, "unknown task 'insert': did you mean 'insertion'?"),
        (AlohaEnvConfig, {"render_profile": "fst"}, "unknown render profile 'fst': did you mean 'fast'?"),
        (PushTEnvConfig, {"render_profile": "fast"}, "unknown render profile 'fast'"),
    ],
)
def test_mistakes_are_named(kind: type[PixioEnvConfig], fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        kind(**fields)
    assert str(caught.value).startswith(sentence)


def test_metaworld_is_lerobots_to_the_frame() -> None:
    """The same seed and actions in LeRobot's own environment: same states and rewards, and the same corner2."""
    from lerobot.envs.metaworld import MetaworldEnv as LerobotsEnv

    theirs = LerobotsEnv("drawer-open-v3", obs_type="pixels_agent_pos", observation_width=480, observation_height=480)
    ours = MetaworldEnvConfig(camera_names=["corner2"], image_size=480, render_profile="standard").make_env()
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 4)).astype(np.float32)
    expected, expected_rewards = play(theirs, 3, actions)
    found, rewards = play(ours, 3, actions)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(rewards, expected_rewards)
    difference = np.abs(ours.render().astype(float) - theirs.render()).mean()
    theirs.close()
    ours.close()
    assert difference < 2, difference


def test_metaworld_offers_all_tasks_with_their_experts() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP

    assert len(MetaworldEnvConfig.tasks()) == 50
    assert set(MetaworldEnvConfig.tasks()) == set(ENV_POLICY_MAP) == set(ALL_V3_ENVIRONMENTS)


def test_aloha_is_gym_alohas() -> None:
    import gym_aloha  # noqa: F401 (registers its environments)

    theirs = gymnasium.make("gym_aloha/AlohaTransferCube-v0", obs_type="pixels_agent_pos").unwrapped
    ours = AlohaEnvConfig(image_size=16).make_env()
    actions = near_rest(ours, 2)
    expected, expected_rewards = play(theirs, 3, actions)
    found, rewards = play(ours, 3, actions)
    ours.close()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert rewards == expected_rewards


def test_pusht_is_gym_pushts() -> None:
    import gym_pusht  # noqa: F401 (registers its environments)

    size = {"observation_width": 48, "observation_height": 48}
    theirs = gymnasium.make("gym_pusht/PushT-v0", obs_type="pixels_agent_pos", **size).unwrapped
    ours = PushTEnvConfig(image_size=48).make_env()
    actions = np.random.default_rng(0).uniform(100, 400, (10, 2)).astype(np.float32)
    expected, expected_rewards = play(theirs, 3, actions.astype(np.float64))
    found, rewards = play(ours, 3, actions)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(rewards, expected_rewards)
    np.testing.assert_array_equal(ours.render(), theirs.get_obs()["pixels"])

    ours.simulation.agent.position = (30.0, 30.0)
    ours.simulation.block.angle = np.pi / 4  # first, because it turns the T about its centre of mass and so moves it
    ours.simulation.block.position = (256.0, 256.0)  # on its goal
    _, reward, terminated, truncated, info = ours.step(np.array([30.0, 30.0], np.float32))
    assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)
    assert info["coverage"] > 0.95
    assert not hasattr(PushTEnvConfig(), "make_expert")


def test_hands_move_as_asked() -> None:
    """Damped least squares against forward kinematics: a small move of the hand ends where it should."""
    env = AlohaEnvConfig(image_size=16).make_env()
    observation, _ = env.reset(seed=0)
    kinematics = Kinematics(env.model)
    start = {"left": observation["agent_pos"][:6].astype(float), "right": observation["agent_pos"][7:13].astype(float)}
    for side, hand in kinematics.update(start).items():
        np.testing.assert_allclose(hand.position, env.data.site(f"cali_{side}_site1").xpos, atol=1e-5)
    bent = np.array([0.1, -0.4, 0.9, 0.2, 0.5, -0.2])  # far from singular, unlike the start
    joints = {"left": bent, "right": bent}
    before = kinematics.update(joints)
    move = np.array([0.004, -0.006, 0.005, 0.0, 0.0, 0.0])
    moved = {side: joints[side] + kinematics.joint_move(side, move) for side in joints}
    after = kinematics.update(moved)
    for side in joints:
        np.testing.assert_allclose(
            after[side].position - before[side].position, move[:3], atol=1e-3
        )  # damped: a little short
    env.close()


@pytest.mark.parametrize(
    ("config", "seeds"),
    [
        (MetaworldEnvConfig(task="drawer-open-v3", image_size=16), (0, 1)),
        (AlohaEnvConfig(task="transfer_cube", image_size=16), (0, 1)),
        (AlohaEnvConfig(task="insertion", image_size=16), (0, 1)),
    ],
    ids=lambda value: getattr(value, "task", ""),
)
def test_experts_solve_their_tasks_and_repeat_themselves(config: PixioEnvConfig, seeds: tuple[int, ...]) -> None:
    env = config.make_env()
    episodes = [demonstrate(config, env, seed) for seed in seeds]
    assert all(success for _, success in episodes)
    again, _ = demonstrate(config, env, seeds[0])
    np.testing.assert_array_equal(again, episodes[0][0])

    observation, info = env.reset(seed=0)
    first, other = config.make_expert(0), config.make_expert(1)  # pyright: ignore[reportAttributeAccessIssue]
    for expert in (first, other):
        expert.reset(env)
    actions = [expert.act(observation, info) for expert in (first, other)]
    assert not np.array_equal(*actions)  # the noise is in the actions, and follows from the expert's seed
    env.close()
