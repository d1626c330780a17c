"""The simulated task: reproducible episodes, physics that rendering never touches, frames that show what is there."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from lerobot_env_pixio import RobosuiteEnvConfig
from lerobot_env_pixio.rendering.frames import outside_view
from lerobot_env_pixio.simulators.robosuite import RobosuiteEnv
from lerobot_env_pixio.simulators.tasks import ROBOTS, TASKS, cameras_of


@pytest.fixture(scope="module")
def env() -> RobosuiteEnv:
    env = RobosuiteEnvConfig().make_env()
    yield env
    env.close()


@pytest.fixture(scope="module")
def short_env() -> RobosuiteEnv:
    env = RobosuiteEnvConfig(episode_length=3, image_size=64, camera_names=["frontview", "agentview"]).make_env()
    yield env
    env.close()


def random_actions(seed: int, steps: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 7)).astype(np.float32)


def play(env: RobosuiteEnv, seed: int | None, steps: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return MuJoCo's states (steps + 1, nq + nv), proprioception and the two cameras' frames of an episode's start."""
    observation, _ = env.reset(seed=seed)
    states, proprioception, frames = [], [], []
    for action in [*random_actions(0, steps), None]:
        states.append(np.concatenate([env.data.qpos, env.data.qvel]))
        proprioception.append(observation["agent_pos"])
        frames.append(np.stack(list(observation["pixels"].values())))
        if action is not None:
            observation, *_ = env.step(action)
    return np.stack(states), np.stack(proprioception), np.stack(frames)


def test_gymnasium_finds_nothing_to_complain_about(short_env: RobosuiteEnv) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(short_env)
    messages = [str(warning.message) for warning in caught if "alternative render modes" not in str(warning.message)]
    assert messages == []


def test_same_seed_same_episode_whatever_came_before(env: RobosuiteEnv) -> None:
    first = play(env, seed=5)
    env.reset(seed=6)
    for action in random_actions(1, 30):
        env.step(action)
    again = play(env, seed=5)
    other = RobosuiteEnvConfig().make_env()
    other.reset()
    elsewhere = play(other, seed=5)
    other.close()
    for a, b, c in zip(first, again, elsewhere, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_seed_places_the_cube_and_bends_the_arm(env: RobosuiteEnv) -> None:
    resets = [env.reset(seed=seed) for seed in range(4)]
    cubes = np.stack([info["object_pose"][:2] for _, info in resets])
    hands = np.stack([observation["agent_pos"][:3] for observation, _ in resets])
    assert (np.ptp(cubes, axis=0) > 0.005).all()
    assert (np.ptp(hands, axis=0) > 0.005).all()


def test_unseeded_resets_follow_from_the_last_seed(env: RobosuiteEnv) -> None:
    poses = []
    for _ in range(2):
        env.reset(seed=3)
        poses.append([env.reset()[1]["object_pose"] for _ in range(2)])
    np.testing.assert_array_equal(poses[0], poses[1])
    assert not np.array_equal(poses[0][0], poses[0][1])


def test_callers_random_numbers_are_left_alone(env: RobosuiteEnv) -> None:
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    env.reset(seed=0)
    assert np.random.random() == expected


@pytest.mark.parametrize("profile", ["fast", "standard"])
def test_cube_appears_where_a_pinhole_camera_sees_it(profile: str) -> None:
    """Red pixels must centre on the cube's projection: wrong orientation, camera or timing would move them."""
    env = RobosuiteEnvConfig(render_profile=profile).make_env()
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        for camera, frame in observation["pixels"].items():
            red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
            rows, columns = np.nonzero((red > 60) & (red > 2 * green) & (red > 2 * blue))
            view = env.data.camera(camera)
            right, up, backward = view.xmat.reshape(3, 3).T @ (info["object_pose"][:3] - view.xpos)
            focal = 64 / np.tan(np.deg2rad(env.model.camera(camera).fovy[0]) / 2)
            column, row = 64 + focal * right / -backward, 64 - focal * up / -backward
            assert len(rows) > 40, camera
            assert abs(rows.mean() - row) < 4, camera
            assert abs(columns.mean() - column) < 4, camera
    env.close()


def test_stacks_info_tells_the_cubes_apart() -> None:
    """The object is the red cube, the goal the green one: each is seen where its pose says, and told if asked for."""
    env = RobosuiteEnvConfig(task="Stack", camera_names=["agentview"], object_poses=True).make_env()
    observation, info = env.reset(seed=1)
    frame = observation["pixels"]["agentview"].astype(int)
    view = env.data.camera("agentview")
    focal = 64 / np.tan(np.deg2rad(env.model.camera("agentview").fovy[0]) / 2)
    for key, channel, others in (("object_pose", 0, [1, 2]), ("goal_pose", 1, [0, 2])):
        rows, columns = np.nonzero((frame[..., channel, None] > 1.4 * frame[..., others]).all(-1))
        right, up, backward = view.xmat.reshape(3, 3).T @ (info[key][:3] - view.xpos)
        assert len(rows) > 40, key
        assert abs(rows.mean() - (64 - focal * up / -backward)) < 4, key
        assert abs(columns.mean() - (64 + focal * right / -backward)) < 4, key
    assert info["goal_pose"].shape == (7,)
    observation, *_, info = env.step(np.array([0, 0, 0, 0, 0, 0, -1], np.float32))
    poses = dict(zip(env.state_names, observation["agent_pos"], strict=True))
    for key, thing in (("object_pose", "object"), ("goal_pose", "goal")):
        found = [poses[f"{thing}_{number}.pos"] for number in ("x", "y", "z", "qx", "qy", "qz", "qw")]
        np.testing.assert_array_equal(found, info[key].astype(np.float32))
    env.close()


def test_undrawn_geoms_do_not_change_a_frame() -> None:
    """The fast profile skips what a camera cannot see; a renderer that draws everything must give the same bits."""
    cameras = ["agentview", "robot0_eye_in_hand", "frontview"]
    env = RobosuiteEnvConfig(camera_names=cameras).make_env()
    observation, _ = env.reset(seed=0)
    skipped = {camera: outside_view(env.model, env.data, camera).sum() for camera in cameras}
    assert skipped["agentview"] > 20
    assert skipped["robot0_eye_in_hand"] > 20
    env.model.geom_rbound[:] = 0  # declares every geom unbounded
    for camera in cameras:
        assert not outside_view(env.model, env.data, camera).any()
    for camera in cameras:
        np.testing.assert_array_equal(observation["pixels"][camera], env.renderer.frame(env.data, camera))
    env.close()


def test_frames_nobody_looks_at_cost_nothing_and_change_nothing(env: RobosuiteEnv) -> None:
    states, proprioception, frames = play(env, seed=3)
    observation, _ = env.reset(seed=3)
    for step, action in enumerate(random_actions(0, 8), 1):
        env.render_observations = step in (4, 8)
        observation, *_ = env.step(action)
        np.testing.assert_array_equal(np.concatenate([env.data.qpos, env.data.qvel]), states[step])
        np.testing.assert_array_equal(observation["agent_pos"], proprioception[step])
        seen = np.stack(list(observation["pixels"].values()))
        np.testing.assert_array_equal(seen, frames[step // 4 * 4])
    assert (frames[4] != frames[8]).any()
    assert env.render_observations


def test_state_and_action_conventions(env: RobosuiteEnv) -> None:
    observation, info = env.reset(seed=0)
    hand = env.data.site("gripper0_right_grip_site").xpos
    np.testing.assert_allclose(observation["agent_pos"][:3], hand, atol=1e-6)
    assert observation["agent_pos"][3] > 0.95  # x of x y z w: the hand points down, half a turn about x
    np.testing.assert_allclose(np.linalg.norm(observation["agent_pos"][3:7]), 1, atol=1e-5)
    assert set(info) == {"is_success", "object_pose"}
    assert info["object_pose"][2] == pytest.approx(0.83, abs=0.01)  # dropped onto the table at 0.8 m
    for axis in range(3):
        start = env.reset(seed=0)[0]["agent_pos"]
        push = np.zeros(7, np.float32)
        push[axis], push[6] = 1, -1
        for _ in range(5):
            end = env.step(push)[0]["agent_pos"]
        moved = (end - start)[:3]
        assert np.argmax(np.abs(moved)) == axis
        assert 0.03 < moved[axis] < 0.25  # OSC_POSE: each step asks for at most 0.05 m
    assert end[7] - end[8] > start[7] - start[8] + 0.01  # -1 opens


def test_truncation_and_rendered_picture(short_env: RobosuiteEnv) -> None:
    env = short_env
    observation, info = env.reset(seed=0)
    assert info["is_success"] is False
    ends = [env.step(np.zeros(7, np.float32))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    picture = env.render()
    assert picture.shape == (64, 128, 3)
    assert picture.dtype == np.uint8
    assert observation["pixels"]["agentview"].shape == (64, 64, 3)


def test_spaces_need_no_simulation() -> None:
    env = RobosuiteEnvConfig().make_env()
    assert isinstance(env.observation_space, gymnasium.spaces.Dict)
    assert env._simulation is None
    assert env._renderer is None


def camera_names(env: RobosuiteEnv) -> set[str]:
    return {env.model.camera(index).name for index in range(env.model.ncam)}


@pytest.mark.parametrize(
    ("task", "robot"),
    [
        ("PickPlaceCan", "Panda"),
        ("Lift", "UR5e"),
        *(pytest.param(task, "Panda", marks=pytest.mark.slow) for task in TASKS if task != "PickPlaceCan"),
        *(pytest.param("Lift", robot, marks=pytest.mark.slow) for robot in ROBOTS if robot not in ("Panda", "UR5e")),
    ],
)
def test_every_camera_of_a_task_and_a_robot_shows_something_else(task: str, robot: str) -> None:
    """What is offered is what the model has, and each camera has its own picture of an arm that moves."""
    known = cameras_of(TASKS[task], ROBOTS[robot])
    env = RobosuiteEnvConfig(task=task, robot=robot, camera_names=list(known), image_size=32).make_env()
    before, info = env.reset(seed=0)
    assert camera_names(env) == set(known)
    assert env.observation_space.contains(before)
    assert ("goal_pose" in info) == (TASKS[task].goal_body is not None)
    frames = np.stack(list(before["pixels"].values())).reshape(len(known), -1)
    assert (frames.std(axis=1) > 5).all()
    assert len(np.unique(frames, axis=0)) == len(known)
    push = np.array([0, 0, 1, 0, 0, 0, -1], np.float32)
    for _ in range(10):
        after, *_ = env.step(push)
    assert env.observation_space.contains(after)
    assert after["agent_pos"][2] > before["agent_pos"][2] + 0.05
    push[6] = 1
    for _ in range(10):
        closing, *_ = env.step(push)
    opening, narrower = (ROBOTS[robot].finger_opening(seen["agent_pos"][7:]) for seen in (after, closing))
    assert opening > narrower + 0.002  # -1 opens, 1 closes; some grippers start as wide open as they go
    env.close()


def test_a_camera_that_this_task_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="unknown camera 'sideview'.*valid names are agentview, birdview, frontview"):
        RobosuiteEnvConfig(task="PickPlaceCan", camera_names=["sideview"])
