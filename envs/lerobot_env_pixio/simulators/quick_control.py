"""robosuite's operational-space controller between two actions, without what it computes again and again.

robosuite calls its controller at every step of the physics, 25 times an action. Most of that time goes into Python: six
Jacobians where one is enough, limits and names that never change, the gripper's command, which only a new action changes.
The arithmetic is robosuite's own, in the same order on arrays of the same layout, so that episodes are equal bit for bit.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

if TYPE_CHECKING:
    from robosuite.environments.base import MujocoEnv


def quicken_control(simulation: "MujocoEnv") -> None:
    """Make a simulation's steps cheaper and leave their results as they are, bit for bit.

    A simulation that is controlled in another way than `build_simulation` sets up is left alone.
    """
    if not _is_supported(simulation):
        return
    robosuites_pre_action, command = simulation._pre_action, None

    def pre_action(action: np.ndarray, policy_step: bool = False) -> None:
        """Command the next step of the physics; an action's first, which `policy_step` tells, is left to robosuite."""
        nonlocal command
        if policy_step:
            robosuites_pre_action(action, policy_step)
            command = _ArmCommand(simulation)
        else:
            assert command is not None
            command.write()

    simulation._pre_action = pre_action


def _is_supported(simulation: Any) -> bool:  # noqa: ANN401 (robosuite declares few of its attributes)
    """Tell whether one arm on a mount that cannot move follows pose deltas in its base's frame, robosuite's default."""
    from robosuite.controllers.parts.arm.osc import OperationalSpaceController
    from robosuite.robots.fixed_base_robot import FixedBaseRobot

    robots: list[Any] = simulation.robots
    if not simulation.lite_physics or len(robots) != 1 or type(robots[0]) is not FixedBaseRobot:
        return False
    if len(robots[0].arms) != 1:
        return False
    arm = robots[0].part_controllers[robots[0].arms[0]]
    model = simulation.sim.model._model
    base = model.site_bodyid[model.site(f"{arm.naming_prefix}{arm.part_name}_center").id]
    return (
        type(arm) is OperationalSpaceController
        and arm.impedance_mode == "fixed"
        and arm.input_ref_frame == "base"
        and arm.uncoupling
        and arm.num_ref_sites == 1
        and arm.interpolator_pos is None
        and arm.interpolator_ori is None
        and model.body_weldid[base] == 0  # IIWA's turns with its first joint
        and all(list(range(numbers[0], numbers[-1] + 1)) == list(numbers) for numbers in _places(robots[0], arm))
    )


def _places(robot: Any, arm: Any) -> list[Sequence[int]]:  # noqa: ANN401 (as above)
    """Return where the arm's positions, velocities and actuators stand among the simulation's."""
    return [arm.qpos_index, arm.qvel_index, robot._ref_actuators_indexes_dict[robot.arms[0]]]


class _ArmCommand:
    """The arm's torques until the next action; robosuite has just taken an action.

    Args:
        simulation: A simulation that `_is_supported`.
    """

    def __init__(self, simulation: Any) -> None:  # noqa: ANN401 (as above)
        from robosuite.utils import control_utils

        self._maths = control_utils
        robot: Any = simulation.robots[0]
        self._arm = arm = robot.part_controllers[robot.arms[0]]
        self._model, self._data = simulation.sim.model._model, simulation.sim.data._data
        self._goal_position = arm.origin_pos + np.dot(arm.origin_ori, arm.goal_pos)
        self._goal_rotation = np.dot(arm.origin_ori, arm.goal_ori)
        self._site = self._model.site(arm.ref_name).id
        # NumPy copies no slice.
        self._positions, self._velocities, self._actuators = (
            slice(numbers[0], numbers[-1] + 1) for numbers in _places(robot, arm)
        )
        self._least, self._most = self._model.actuator_ctrlrange[self._actuators].T
        self._translating, self._rotating = np.zeros((2, 3, self._model.nv))
        self._inertia = np.zeros((self._model.nv, self._model.nv))

    def write(self) -> None:
        """Do what robosuite's controller does at a step without a new action."""
        arm, data, own = self._arm, self._data, self._velocities
        velocities = data.qvel
        mujoco.mj_jacSite(self._model, data, self._translating, self._rotating, self._site)
        mujoco.mj_fullM(self._model, self._inertia, data.qM)
        arm.ref_pos[:] = data.site_xpos[self._site]
        arm.ref_ori_mat[:] = data.site_xmat[self._site].reshape(3, 3)
        arm.J_full[:3] = arm.J_pos[:] = self._translating[:, own]
        arm.J_full[3:] = arm.J_ori[:] = self._rotating[:, own]
        mass_matrix = self._inertia[own, own].copy(order="F")  # as robosuite's way to cut it out leaves it

        # robosuite also subtracts the velocity of the arm's mount, which is zero here.
        position_error = self._goal_position - arm.ref_pos
        force = position_error * arm.kp[:3] - np.dot(self._translating, velocities) * arm.kd[:3]
        rotation_error = self._maths.orientation_error(self._goal_rotation, arm.ref_ori_mat)
        torque = rotation_error * arm.kp[3:6] - np.dot(self._rotating, velocities) * arm.kd[3:6]

        _, lambda_position, lambda_rotation, nullspace = self._maths.opspace_matrices(
            mass_matrix, arm.J_full, arm.J_pos, arm.J_ori
        )
        wrench = np.concatenate([np.dot(lambda_position, force), np.dot(lambda_rotation, torque)])
        torques = np.dot(arm.J_full.T, wrench) + data.qfrc_bias[own]
        torques += self._maths.nullspace_torques(
            mass_matrix, nullspace, arm.initial_joint, data.qpos[self._positions], velocities[own]
        )
        data.ctrl[self._actuators] = np.minimum(np.maximum(torques, self._least), self._most)
