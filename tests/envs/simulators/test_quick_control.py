"""The cheaper controller loop gives robosuite's own episodes, bit for bit."""

import numpy as np
import pytest
from lerobot_env_pixio.simulators.simulation import build_simulation, numpy_seed


def _episodes(simulation, seeds=(3, 4), n_steps=25) -> np.ndarray:
    """Everything that the physics and its controller decide, step by step (N, numbers)."""
    states = []
    for seed in seeds:
        with numpy_seed(seed):
            simulation.reset()
        actions = np.random.default_rng(seed).uniform(-1.2, 1.2, (n_steps, simulation.action_dim))
        for action in actions:
            simulation.step(action)
            data = simulation.sim.data._data
            states.append(np.concatenate([data.qpos, data.qvel, data.ctrl, data.qacc, data.sensordata]))
    return np.array(states)


@pytest.mark.parametrize(("task", "robot"), [("Lift", "Panda"), ("Door", "UR5e")])
def test_episodes_are_robosuites(task, robot):
    simulation = build_simulation(task, robot, 20)
    own_loop = type(simulation)._pre_action.__get__(simulation)
    assert simulation._pre_action != own_loop  # this robot's loop is replaced

    quick = _episodes(simulation)
    simulation._pre_action = own_loop
    np.testing.assert_array_equal(quick, _episodes(simulation))


def test_an_arm_on_a_turning_mount_keeps_robosuites_loop():
    """robosuite measures IIWA's velocities against a link that moves."""
    simulation = build_simulation("Lift", "IIWA", 20)
    assert simulation._pre_action == type(simulation)._pre_action.__get__(simulation)
