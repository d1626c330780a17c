"""The scripted expert succeeds under its own noise, repeats itself, and acts on nothing that a policy cannot see."""

import numpy as np
import pytest
from lerobot_env_pixio import RobosuiteEnvConfig
from lerobot_env_pixio.experts import EXPERTS, Expert, LiftExpert, StackExpert
from lerobot_env_pixio.experts.base import Strayed
from lerobot_env_pixio.simulators.robosuite import RobosuiteEnv
from lerobot_env_pixio.simulators.tasks import TASKS

CONFIG = RobosuiteEnvConfig(image_size=16)
STACK_CONFIG = RobosuiteEnvConfig(task="Stack", image_size=16)
# Seeds of which, where half of the episodes have a mistake of either kind, one has it.
MISSING = [("Lift", 15), ("Stack", 10), ("PickPlaceCan", 11), ("NutAssemblySquare", 13)]
STRAYING = [("Lift", 2), ("Stack", 30), ("PickPlaceCan", 16), ("NutAssemblySquare", 17)]


@pytest.fixture(scope="module")
def env() -> RobosuiteEnv:
    env = CONFIG.make_env()
    env.render_observations = False  # the expert looks at no pixel
    yield env
    env.close()


@pytest.fixture(scope="module")
def stack_env() -> RobosuiteEnv:
    env = STACK_CONFIG.make_env()
    env.render_observations = False
    yield env
    env.close()


def demonstrate(env: RobosuiteEnv, expert: Expert, seed: int) -> tuple[np.ndarray, bool, float]:
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


@pytest.mark.parametrize(
    ("robot", "wide_open", "halfway", "turned"),
    # The gripper's joints when it is open, and when its pads could no longer pass the cube's diagonal; where a cube's sides
    # are turned by 0.1 rad, and how far the hand turns for it.
    [
        ("Panda", [0.04, -0.04], [0.021, -0.021], 0.0),
        ("Sawyer", [0.011, -0.011], [0.002, -0.002], 0.1),
        ("UR5e", [-0.05, 0, 0, 0, 0, 0], [0.34, 0, 0, 0, 0, 0], 0.1 - np.pi / 4),
        ("Jaco", [0.9, 0, 0, 0, 0, 0], [0.68, 0, 0, 0, 0, 0], 0.1),
    ],
)
def test_each_gripper_takes_the_cube_the_way_it_can(
    robot: str, wide_open: list[float], halfway: list[float], turned: float
) -> None:
    expert = LiftExpert(0, robot)
    cube = np.array([0.0, 0.0, 0.82, 0.0, 0.0, np.sin(0.05), np.cos(0.05)])

    def act(above: float, yaw: float, joints: list[float]) -> np.ndarray:
        agent_pos = np.array([0, 0, 0.82 + above, np.cos(yaw / 2), np.sin(yaw / 2), 0, 0, *joints])
        return expert.clean_action(agent_pos, cube)

    assert act(0.05, 0.0, wide_open)[5] == pytest.approx(2.0 * turned)  # the action's unit is half a radian
    assert act(0.05, turned, wide_open)[2] < 0  # turned: down
    assert act(0.0, turned, wide_open)[6] == 1  # around the cube: close
    assert act(0.0, turned, halfway)[2] > 0.4  # holding it: up
    if turned:
        assert act(0.0, turned + 0.5, wide_open)[2] > 0  # at the cube, but not turned: up again


def test_what_fingers_cannot_hold_is_refused_with_a_robot_that_can() -> None:
    config = RobosuiteEnvConfig(task="PickPlaceCan", robot="UR5e")
    with pytest.raises(ValueError, match="UR5e stay 52 mm apart.*holds what is 50 mm wide: choose a robot among Panda"):
        config.make_expert(0)


def test_every_task_has_an_expert() -> None:
    assert set(EXPERTS) == set(TASKS)
    for task, expert in EXPERTS.items():
        assert type(RobosuiteEnvConfig(task=task).make_expert(0)) is expert


def test_stacks_and_repeats_itself(stack_env: RobosuiteEnv) -> None:
    episodes = [demonstrate(stack_env, STACK_CONFIG.make_expert(seed), seed) for seed in range(200, 206)]
    assert all(success for _, success, _ in episodes)
    assert all(reward == 1.0 for _, _, reward in episodes)
    assert 35 < np.mean([len(actions) for actions, _, _ in episodes]) < 100
    again, _, _ = demonstrate(stack_env, STACK_CONFIG.make_expert(200), 200)
    np.testing.assert_array_equal(again, episodes[0][0])


def test_stacking_is_decided_by_what_can_be_seen() -> None:
    expert = StackExpert(0)
    goal = np.array([0.0, 0.0, 0.825])  # the other cube, 50 mm high on a table at 0.8 m
    place = 0.87

    def held(beside: float, height: float, opening: float, yaw: float = 0.0) -> np.ndarray:
        cube = np.array([beside, 0.0, height])
        turned = [np.cos(yaw / 2), np.sin(yaw / 2), 0.0, 0.0]
        agent_pos = np.array([*cube, *turned, opening / 2, -opening / 2])
        return expert.clean_action(agent_pos, cube, goal)

    assert held(0.1, 0.82, 0.08)[[0, 2, 6]] == pytest.approx([0, 0, 1])  # around the cube: close, stay
    assert held(0.1, 0.82, 0.04)[[0, 2, 6]] == pytest.approx([0, 1, 1])  # holding it on the table: straight up
    assert held(0.1, 0.90, 0.04)[0] < -0.4  # high enough to pass over the other: go there
    assert held(0.1, 0.90, 0.055)[0] < -0.4  # also when it is held by its corners
    assert held(0.0, 0.90, 0.04)[[2, 6]] == pytest.approx([-1, 1])  # above its place: lower it
    assert held(0.0, place + 0.003, 0.04)[6] == -1  # there: let go
    assert held(0.018, place, 0.04)[6] == 1  # near the edge: not yet
    assert held(0.015, place, 0.07)[[2, 6]] == pytest.approx([1, -1])  # let go near the edge: leave it, retreat
    assert held(0.0, 0.82, 0.04, yaw=0.5)[5] == 0  # a cube between the fingers is not turned


def test_fingers_keep_clear_of_the_other_cube() -> None:
    expert = StackExpert(0)
    cube = np.array([0.0, 0.0, 0.82])

    def turn(goal_x: float, goal_y: float, yaw: float = 0.0) -> float:
        agent_pos = np.array([0, 0, 1, np.cos(yaw / 2), np.sin(yaw / 2), 0, 0, 0.04, -0.04])
        return expert.clean_action(agent_pos, cube, np.array([goal_x, goal_y, 0.825]))[5]

    assert turn(0.07, 0.0) == 0  # the fingers go down beside the way to the other cube
    assert turn(0.0, 0.15) == 0  # in their line, but far
    assert turn(0.01, 0.07) > 1  # in their line: turn away from it, in the shorter sense
    assert turn(-0.01, 0.07) < -1
    assert turn(0.01, 0.07, yaw=-0.4) < 0  # and on in that sense, once turned
    assert turn(0.07, 0.0, yaw=0.4) < -0.5  # no need: straight again


# The length of an episode of each, as in configs/env.
OTHER_TASKS = {"Door": 200, "PickPlaceCan": 250, "NutAssemblySquare": 300}


def successes(config: RobosuiteEnvConfig, seeds: range) -> list[bool]:
    """Return which seeds' demonstrations succeed, without rendering."""
    env = config.make_env()
    env.render_observations = False
    solved = [demonstrate(env, config.make_expert(seed), seed)[1] for seed in seeds]
    env.close()
    return solved


@pytest.mark.parametrize(("task", "steps"), OTHER_TASKS.items())
def test_other_tasks_are_solved_and_demonstrations_repeat(task: str, steps: int) -> None:
    config = RobosuiteEnvConfig(task=task, image_size=16, camera_names=["agentview"], episode_length=steps)
    env = config.make_env()
    env.render_observations = False
    actions, success, rewards = demonstrate(env, config.make_expert(200), 200)
    assert success
    assert rewards == 1.0
    assert np.abs(actions).max() <= 1
    env.reset(seed=201)
    again, _, _ = demonstrate(env, config.make_expert(200), 200)
    np.testing.assert_array_equal(again, actions)
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", OTHER_TASKS)
def test_other_tasks_succeed_on_most_of_100_seeds(task: str) -> None:
    config = RobosuiteEnvConfig(task=task, image_size=16, camera_names=["agentview"], episode_length=OTHER_TASKS[task])
    assert sum(successes(config, range(100))) >= 95


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["UR5e", "Kinova3", "IIWA", "Sawyer"])
def test_other_robots_lift_on_most_of_40_seeds(robot: str) -> None:
    config = RobosuiteEnvConfig(robot=robot, image_size=16, camera_names=["agentview"])
    assert sum(successes(config, range(40))) >= 38


def demonstrate_with_mistakes(task: str, seed: int) -> tuple[list[bool], list[bool], np.ndarray, bool]:
    """Return of each step whether the expert errs, whether it closes the hand, and where the hand is (T, 3); and the success.

    Half of the episodes have a missed grasp, half of them a hand that goes astray: which, the seed says.
    """
    config = RobosuiteEnvConfig(task=task, image_size=16, expert_mistakes=0.5, episode_length=300)
    env, expert = config.make_env(), config.make_expert(seed)
    env.render_observations = False
    observation, info = env.reset(seed=seed)
    expert.reset(env)
    errs, grippers, hands, ended = [], [], [], False
    while not ended:
        action = expert.act(observation, info)
        errs.append(expert.errs)
        grippers.append(action[6] > 0)
        hands.append(observation["agent_pos"][:3])
        observation, _, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
    env.close()
    return errs, grippers, np.stack(hands), terminated


@pytest.mark.parametrize(("task", "seed"), MISSING)
def test_a_grasp_that_misses_on_purpose_is_marked_and_tried_again(task: str, seed: int) -> None:
    errs, grippers, _, succeeds = demonstrate_with_mistakes(task, seed)
    first, last = np.flatnonzero(errs)[[0, -1]]
    assert all(errs[first : last + 1]), "one mistake"
    assert not errs[0] and not errs[-1]
    assert not any(grippers[:first]), "it errs with an open hand"
    assert any(grippers[first : last + 1]), "and closes it on nothing"
    assert not all(grippers[last + 1 :]), "then it lets go,"
    assert grippers[-1] or task != "Lift", "takes the thing,"
    assert succeeds


@pytest.mark.parametrize(("task", "seed"), STRAYING)
def test_a_hand_that_goes_astray_is_marked_and_comes_back(task: str, seed: int) -> None:
    errs, _, hands, succeeds = demonstrate_with_mistakes(task, seed)
    edges = np.flatnonzero(np.diff([0, *errs, 0])).reshape(-1, 2)
    assert 1 <= len(edges) <= 2, "once or twice"
    assert all(Strayed.STEPS[0] <= end - start < Strayed.STEPS[1] for start, end in edges)
    assert not errs[0] and not errs[-1]
    assert np.linalg.norm(np.diff(hands[slice(*edges[0])], axis=0), axis=1).sum() > 0.02, "it goes somewhere"
    assert succeeds


def test_who_never_errs_says_so(env: RobosuiteEnv) -> None:
    expert = CONFIG.make_expert(0)
    demonstrate(env, expert, seed=0)
    assert expert.errs is None
    with pytest.raises(ValueError, match=r"expert_mistakes=1\.5 is no share"):
        RobosuiteEnvConfig(image_size=16, expert_mistakes=1.5)
