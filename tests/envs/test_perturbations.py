"""Perturbations change what the cameras see, and nothing else."""

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest
from lerobot_env_pixio import RobosuiteEnvConfig
from lerobot_env_pixio.perturbations import PERTURBATIONS, Surroundings
from lerobot_env_pixio.robosuite_env import RobosuiteEnv

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (3, 7)).astype(np.float32)


def play(env: RobosuiteEnv, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return MuJoCo's states over a few steps, and the last frames (cameras: agentview, robot0_eye_in_hand)."""
    observation, _ = env.reset(seed=seed)
    states = []
    for action in ACTIONS:
        observation, *_ = env.step(action)
        states.append(np.concatenate([env.data.qpos, env.data.qvel]))
    return np.stack(states), observation["pixels"]


def make(perturbation: str, task: str = "Lift") -> RobosuiteEnv:
    return RobosuiteEnvConfig(task=task, perturbation=perturbation, image_size=64).make_env()


@pytest.fixture(scope="module")
def nominal() -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    env = make("none")
    yield play(env, seed=3)
    env.close()


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_looks_change_with_the_seed_and_physics_never(
    name: str, nominal: tuple[np.ndarray, dict[str, np.ndarray]]
) -> None:
    env = make(name)
    states, frames = play(env, seed=3)
    _, other_frames = play(env, seed=4)
    again_states, again_frames = play(env, seed=3)
    env.close()
    np.testing.assert_array_equal(states, nominal[0])
    np.testing.assert_array_equal(again_states, states)
    np.testing.assert_array_equal(again_frames["agentview"], frames["agentview"])
    change = np.abs(frames["agentview"].astype(int) - nominal[1]["agentview"]).mean()
    assert change > 3, "the room's camera hardly sees a difference"
    assert np.abs(frames["agentview"].astype(int) - other_frames["agentview"]).mean() > 3
    if name == "light":
        assert 0.15 < frames["agentview"].mean() / nominal[1]["agentview"].mean() < 0.65
    if name == "camera":  # the camera on the hand stays where it is mounted
        np.testing.assert_array_equal(frames["robot0_eye_in_hand"], nominal[1]["robot0_eye_in_hand"])


def test_other_tasks_tables_are_found() -> None:
    env, plain = make("table_texture", "Stack"), make("none", "Stack")
    frames, nominal = env.reset(seed=3)[0]["pixels"], plain.reset(seed=3)[0]["pixels"]
    env.close()
    plain.close()
    assert np.abs(frames["agentview"].astype(int) - nominal["agentview"]).mean() > 3


def test_unknown_perturbation_offers_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown perturbation 'lights': did you mean 'light'\?"):
        RobosuiteEnvConfig(perturbation="lights")


def test_distractors_stand_on_the_table_clear_of_the_cube_of_the_arm_and_of_each_other() -> None:
    env = make("distractors")
    counts = []
    for seed in range(6):
        env.reset(seed=seed)
        table = env.data.geom("table_visual")
        half_extents = env.model.geom("table_visual").size
        top = table.xpos[2] + half_extents[2]
        others = [env.data.body("cube_main").xpos[:2], env.data.site("gripper0_right_grip_site").xpos[:2]]
        geoms = env.renderer.added_geoms
        counts.append(len({tuple(geom.position[:2]) for geom in geoms}))
        for geom in geoms:
            assert (np.abs(geom.position[:2] - table.xpos[:2]) < half_extents[:2]).all()
            assert geom.position[2] > top
            assert all(np.linalg.norm(geom.position[:2] - other) > 0.06 for other in others)
        feet = np.array(sorted({tuple(geom.position[:2]) for geom in geoms}))
        apart = np.linalg.norm(feet[:, None] - feet, axis=-1) + np.eye(len(feet))
        assert apart.min() > 0.05
    env.close()
    assert min(counts) >= 3
    assert len(set(counts)) > 1


@pytest.mark.parametrize("name", ["table_texture", "table_colour", "distractors"])
def test_a_task_without_a_table_is_refused_in_a_sentence(name: str) -> None:
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    nowhere = Surroundings("Floating", model, mujoco.MjData(model), scene_cameras=(), table_geoms=())
    with pytest.raises(ValueError, match=f"'{name}' changes the table, and the task 'Floating' has none"):
        PERTURBATIONS[name](nowhere, np.random.default_rng(0))
