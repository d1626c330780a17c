"""The scripted expert succeeds under its own noise, repeats itself, and acts on nothing that a policy cannot see."""

import numpy as np
import pytest
from lerobot_env_pixio import RobosuiteEnvConfig
from lerobot_env_pixio.experts import LiftExpert
from lerobot_env_pixio.robosuite_env import RobosuiteEnv

CONFIG = RobosuiteEnvConfig(image_size=16)  # the expert looks at no pixel


@pytest.fixture(scope="module")
def env() -> RobosuiteEnv:
    env = CONFIG.make_env()
    yield env
    env.close()


def demonstrate(env: RobosuiteEnv, expert: LiftExpert, seed: int) -> tuple[np.ndarray, bool, float]:
    """Return the actions of an episode, whether it succeeded, and the sum of its rewards."""
    observation, info = env.reset(seed=seed)
    expert.reset(env)
    actions, rewards, ended = [], 0.0, False
    while not ended:
        actions.append(expert.act(observation, info))
        observation, reward, terminated, truncated, info = env.step(actions[-1])
        rewards += reward
        ended = terminated or truncated
    assert info["is_success"] == terminated
    return np.stack(actions), terminated, rewards


def test_succeeds_in_some_thirty_steps(env: RobosuiteEnv) -> None:
    episodes = [demonstrate(env, CONFIG.make_expert(seed), seed) for seed in range(200, 212)]
    lengths = [len(actions) for actions, _, _ in episodes]
    assert all(success for _, success, _ in episodes)
    assert all(reward == 1.0 for _, _, reward in episodes)
    assert 20 < np.mean(lengths) < 50
    for actions, _, _ in episodes:
        assert actions.dtype == np.float32
        assert np.abs(actions).max() <= 1


def test_same_seed_same_demonstration(env: RobosuiteEnv) -> None:
    expert = CONFIG.make_expert(4)
    first, _, _ = demonstrate(env, expert, seed=4)
    again, _, _ = demonstrate(env, expert, seed=4)
    other, _, _ = demonstrate(env, CONFIG.make_expert(5), seed=4)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[:5], other[:5])


def test_noise_is_in_the_actions_and_is_corrected(env: RobosuiteEnv) -> None:
    """Bursts push the hand off its way, and the next clean action points back."""
    expert = CONFIG.make_expert(0)
    observation, info = env.reset(seed=0)
    expert.reset(env)
    clean = expert.clean_action(observation["agent_pos"], info["object_pose"][:3])
    noises = []
    for _ in range(500):  # the same instant again and again: what differs is noise
        noises.append(expert.act(observation, info)[1] - clean[1])
    noises = np.array(noises)
    assert abs(clean[1]) < 0.5  # far from clipping
    assert np.mean(np.abs(noises) > 0.2) > 0.05  # in bursts
    assert np.median(np.abs(noises)) < 0.1  # not everywhere

    pushed = observation["agent_pos"].copy()
    pushed[1] += 0.05
    assert expert.clean_action(pushed, info["object_pose"][:3])[1] < clean[1] - 0.5


def test_grip_is_decided_by_what_can_be_seen() -> None:
    expert = LiftExpert(0)
    cube = np.array([0.0, 0.0, 0.82])

    def act(beside: float, above: float, opening: float) -> np.ndarray:
        agent_pos = np.array([beside, 0, 0.82 + above, 1, 0, 0, 0, opening / 2, -opening / 2])
        return expert.clean_action(agent_pos, cube)

    assert act(0.1, 0.1, 0.08)[[0, 6]] == pytest.approx([-4, -1])  # far: go there, open (1 is 0.05 m, gain 2)
    assert act(0.03, 0.0, 0.08)[2] > 0  # beside the cube: up the funnel before going over it
    assert act(0.0, 0.05, 0.08)[2] < 0  # above: down
    assert act(0.0, 0.05, 0.08)[6] == -1
    assert act(0.0, 0.0, 0.08)[[2, 6]] == pytest.approx([0, 1])  # around it and open: close, stay
    assert act(0.0, 0.0, 0.042)[[2, 6]] == pytest.approx([1, 1])  # holding it: up
    assert act(0.0, 0.015, 0.042)[6] == 1  # slipping: hold on
    assert act(0.0, 0.03, 0.01)[6] == -1  # closed on nothing: open again
