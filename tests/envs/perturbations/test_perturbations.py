"""Perturbations change what the cameras see, and nothing else."""

import functools
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest
from lerobot_env_pixio import AlohaEnvConfig, MetaworldEnvConfig, PushTEnvConfig, RobosuiteEnvConfig
from lerobot_env_pixio.perturbations.perturbations import PERTURBATIONS, Surroundings
from lerobot_env_pixio.simulators.camera_env import CameraEnv, MujocoCameraEnv
from lerobot_env_pixio.simulators.robosuite import RobosuiteEnv

# A camera in the room first, and then one on the robot, where it has one.
SIMULATORS = {
    "robosuite": functools.partial(RobosuiteEnvConfig, camera_names=["agentview", "robot0_eye_in_hand"]),
    "metaworld": functools.partial(MetaworldEnvConfig, camera_names=["corner2", "gripperPOV"]),
    "aloha": functools.partial(AlohaEnvConfig, camera_names=["top", "left_wrist"]),
    "pusht": PushTEnvConfig,
}


def play(env: CameraEnv, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return everything that is simulated over a few steps, and the last frames."""
    observation, info = env.reset(seed=seed)
    noise = np.random.default_rng(0).uniform(-1, 1, (3, *env.action_space.shape))
    start = 0.0 if env.control_mode.startswith("delta") else observation["agent_pos"]
    actions = np.clip(start + 0.3 * noise, env.action_space.low, env.action_space.high).astype(np.float32)
    states = []
    for action in actions:
        observation, *_, info = env.step(action)
        knowledge = [np.ravel(value) for value in (observation["agent_pos"], *info.values())]
        if isinstance(env, MujocoCameraEnv):
            knowledge += [env.data.qpos.copy(), env.data.qvel.copy(), env.data.qfrc_constraint.copy()]
        states.append(np.concatenate(knowledge))
    return np.stack(states), list(observation["pixels"].values())


@pytest.fixture(scope="module", params=SIMULATORS)
def env_and_nominal(request: pytest.FixtureRequest) -> Iterator[tuple[CameraEnv, tuple[np.ndarray, list[np.ndarray]]]]:
    """Return a simulator's environment, and what it plays as it ships."""
    env = SIMULATORS[request.param](image_size=64).make_env()
    nominal = play(env, seed=3)
    yield env, nominal
    env.close()


def make(perturbation: str, task: str = "Lift") -> RobosuiteEnv:
    return RobosuiteEnvConfig(task=task, perturbation=perturbation, image_size=64).make_env()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second).mean())


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_looks_change_with_the_seed_and_physics_never(
    env_and_nominal: tuple[CameraEnv, tuple[np.ndarray, list[np.ndarray]]], name: str
) -> None:
    env, (nominal_states, nominal_frames) = env_and_nominal
    env.perturbation = name
    states, frames = play(env, seed=3)
    _, other_frames = play(env, seed=4)
    again_states, again_frames = play(env, seed=3)
    np.testing.assert_array_equal(states, nominal_states)
    np.testing.assert_array_equal(again_states, states)
    np.testing.assert_array_equal(again_frames, frames)
    # An added object is a small part of a picture; everything else changes most of it.
    least = 0.3 if name == "distractors" else 3
    assert difference(frames[0], nominal_frames[0]) > least, "the room's camera hardly sees a difference"
    assert difference(frames[0], other_frames[0]) > least
    if name == "light":
        assert 0.15 < frames[0].mean() / nominal_frames[0].mean() < 0.65
    if name == "camera":  # the camera on the hand stays where it is mounted
        np.testing.assert_array_equal(frames[1:], nominal_frames[1:])


def test_a_task_looks_as_it_does_once_its_perturbation_is_taken_back(
    env_and_nominal: tuple[CameraEnv, tuple[np.ndarray, list[np.ndarray]]],
) -> None:
    env, (nominal_states, nominal_frames) = env_and_nominal
    for name in PERTURBATIONS:
        env.perturbation = name
        env.reset(seed=4)
    env.perturbation = "none"
    states, frames = play(env, seed=3)
    np.testing.assert_array_equal(states, nominal_states)
    np.testing.assert_array_equal(frames, nominal_frames)


def test_other_tasks_tables_are_found() -> None:
    env = make("none", "Stack")
    nominal = env.reset(seed=3)[0]["pixels"]
    env.perturbation = "table_texture"
    frames = env.reset(seed=3)[0]["pixels"]
    env.close()
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
