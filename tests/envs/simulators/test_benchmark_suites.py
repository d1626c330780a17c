"""What encoders are compared on: Adroit, the control suite, and Meta-World as CortexBench looks at it."""

from pathlib import Path

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from lerobot.envs.utils import env_to_policy_features, preprocess_observation
from lerobot_env_pixio import AdroitEnvConfig, DmcEnvConfig, MetaworldEnvConfig
from lerobot_env_pixio.configuration import PixioEnvConfig
from lerobot_env_pixio.experts.adroit import AdroitExpert

CONFIGS = [
    DmcEnvConfig(task="reacher_easy", fps=25, image_size=16, episode_length=4),
    AdroitEnvConfig(task="relocate", image_size=16, episode_length=4),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.type)
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")
def test_contract(config: PixioEnvConfig) -> None:
    env = config.make_env()
    check_env(env, skip_render_check=True)
    seen = preprocess_observation(env.reset(seed=5)[0])
    features = env_to_policy_features(config)
    assert set(features) == {*seen, "action"}
    assert all(tuple(value.shape[1:]) == features[key].shape for key, value in seen.items())

    def episode(seed: int) -> np.ndarray:
        state = [env.reset(seed=seed)[1]["full_state"]]
        for action in np.random.default_rng(0).uniform(-1, 1, (3, *env.action_space.shape)):
            state.append(env.step(action.astype(np.float32))[-1]["full_state"])
        return np.stack(state)

    first = episode(5)
    assert not np.array_equal(episode(6), first)
    np.testing.assert_array_equal(episode(5), first)
    assert not env.step(env.action_space.sample())[2]
    env.close()


def test_the_control_suite_is_dm_controls_with_repeated_actions() -> None:
    from dm_control import suite

    config = DmcEnvConfig(task="walker_walk", image_size=16)
    env = config.make_env()
    env.reset(seed=3)
    theirs = suite.load("walker", "walk", task_kwargs={"random": 3})
    theirs.reset()
    # Only the places where an episode starts come from the seed, which each counts in its own way.
    with theirs.physics.reset_context():
        theirs.physics.set_state(env.simulation.physics.get_state())
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 6)).astype(np.float32)
    rewards = [env.step(action)[1] for action in actions]
    expected = [sum(theirs.step(action.astype(np.float64)).reward for _ in range(2)) for action in actions]
    np.testing.assert_allclose(rewards, expected, rtol=1e-6)
    assert config.fps == round(1 / theirs.control_timestep() / 2)
    env.close()


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (DmcEnvConfig, {"task": "walker_wlk"}, "unknown task 'walker_wlk': did you mean 'walker_walk'?"),
        (DmcEnvConfig, {"fps": 40}, "the control suite is controlled at 20 Hz and nothing else"),
        (DmcEnvConfig, {"action_repeat": 0}, "env.action_repeat must be a whole number of at least 1"),
        (AdroitEnvConfig, {"task": "pan"}, "unknown task 'pan': did you mean 'pen'?"),
        (AdroitEnvConfig, {"fps": 50}, "Adroit is controlled at 100 Hz and nothing else"),
    ],
)
def test_mistakes_are_named(kind: type[PixioEnvConfig], fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        kind(**fields)
    assert str(caught.value).startswith(sentence)


def network(folder: Path, **changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [39, 8, 8, 30]
    arrays = {}
    for layer in range(3):
        arrays[f"weight{layer}"] = rng.normal(size=(sizes[layer + 1], sizes[layer])).astype(np.float32)
        arrays[f"bias{layer}"] = rng.normal(size=sizes[layer + 1]).astype(np.float32)
    arrays |= {"in_shift": rng.normal(size=39), "in_scale": rng.uniform(1, 2, 39)}
    arrays |= {"out_shift": np.zeros(30), "out_scale": np.full(30, 0.1)}
    np.savez(folder / "relocate.npz", **(arrays | changes))
    return arrays


def test_an_expert_is_its_network(tmp_path: Path) -> None:
    a = network(tmp_path)
    state = np.random.default_rng(1).normal(size=39)
    hidden = np.tanh(a["weight0"] @ ((state - a["in_shift"]) / a["in_scale"]) + a["bias0"])
    hidden = np.tanh(a["weight1"] @ hidden + a["bias1"])
    expected = np.clip((a["weight2"] @ hidden + a["bias2"]) * a["out_scale"], -1, 1)
    found = AdroitExpert("relocate", tmp_path).act({}, {"full_state": state})
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"weight1": np.zeros((4, 8))}, "its layers do not fit each other"),
        ({"bias0": np.full(8, np.nan)}, "or are not finite"),
        ({"bias0": np.array([Path()] * 8, object)}, "is no expert of Adroit"),
    ],
)
def test_experts_that_are_none_are_named(tmp_path: Path, changes: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(ValueError, match="there is no expert .*pen.npz: expected the arrays weight0"):
        AdroitExpert("pen", tmp_path)
    network(tmp_path, **changes)
    with pytest.raises(ValueError, match=f"relocate.npz.*{sentence}"):
        AdroitExpert("relocate", tmp_path)
    with pytest.raises(ValueError, match="name their folder with env.experts"):
        AdroitEnvConfig().make_expert(0)


def test_adroit_counts_the_steps_at_the_goal() -> None:
    env = AdroitEnvConfig(task="relocate", image_size=16, episode_length=30).make_env()
    env.render_observations = False
    for at_goal, success in ((25, False), (26, True)):
        env.reset(seed=0)
        env._execute = lambda action, steps=at_goal: (0.0, env._steps < steps)
        ends = [env.step(np.zeros(30, np.float32))[2:] for _ in range(30)]
        assert [terminated for terminated, _, _ in ends] == [False] * 29 + [success]
        assert [truncated for _, truncated, _ in ends] == [False] * 29 + [not success]
        assert ends[-1][2]["is_success"] is success
    env.close()


def test_metaworld_judges_the_last_step_where_episodes_do_not_end_at_success() -> None:
    def played(**settings: object) -> list[tuple[bool, bool, bool]]:
        config = MetaworldEnvConfig(task="drawer-open-v3", image_size=16, expert_noise=0.0, **settings)
        env, expert = config.make_env(), config.make_expert(0)
        observation, info = env.reset(seed=0)
        env.render_observations = False
        expert.reset(env)
        ends: list[tuple[bool, bool, bool]] = []
        while not ends or not any(ends[-1][:2]):
            observation, _, terminated, truncated, info = env.step(expert.act(observation, info))
            ends.append((terminated, truncated, info["is_success"]))
        env.close()
        return ends

    until_done = played(episode_length=200)
    whole = played(episode_length=200, ends_at_success=False)
    assert len(until_done) < len(whole) == 200
    assert until_done[-1] == whole[-1] == (True, False, True)
    assert not any(any(end) for end in whole[:-1])
    too_short = played(episode_length=len(until_done) - 5, ends_at_success=False)
    assert too_short[-1] == (False, True, False)


def test_metaworlds_added_camera_looks_at_the_table_and_changes_nothing_else() -> None:
    env = MetaworldEnvConfig(task="hammer-v3", camera_names=["top_cap2"], image_size=32).make_env()
    frame = env.reset(seed=0)[0]["pixels"]["top_cap2"]
    assert frame.std() > 10
    camera, table = env.data.camera("top_cap2"), env.data.body("tablelink")
    np.testing.assert_allclose(camera.xpos, [0.0, 0.9, 0.6])
    ahead = -camera.xmat.reshape(3, 3)[:, 2]
    way = table.xpos - camera.xpos
    np.testing.assert_allclose(ahead, way / np.linalg.norm(way), atol=1e-6)

    stock = mujoco.MjModel.from_xml_path(env.simulation.fullpath)
    for name in ("body_mass", "body_pos", "geom_size", "jnt_range", "dof_damping", "actuator_gainprm"):
        np.testing.assert_array_equal(getattr(env.model, name), getattr(stock, name))
    assert env.model.ncam == stock.ncam + 1
    env.close()
