"""What is known about each robosuite task and robot before any simulator is loaded."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TaskSpec:
    """One robosuite task.

    Attributes:
        description: The instruction in words, for language-conditioned policies.
        object_body: MuJoCo body of the object that the robot manipulates.
        cameras: Fixed cameras of the scene; the robot adds its own.
        goal_body: MuJoCo body that the object is brought to or moves against, in tasks that have one.
    """

    description: str
    object_body: str
    cameras: tuple[str, ...]
    goal_body: str | None = None


@dataclass(frozen=True)
class RobotSpec:
    """One robot with its default gripper under the end-effector pose controller.

    Attributes:
        gripper_joints: Joints whose positions are the gripper's proprioception.
        opening: Distance between the fingers (metres): what it is with all gripper joints at zero, and how much each
            joint adds for one metre or radian.
        narrowest: What is left of that distance when the fingers close on nothing, metres.
        cube_grasp: How they take a cube of 42 mm: a key of `experts.cubes.CUBE_GRASPS`.
        eef_body: MuJoCo body whose orientation is the end effector's.
        eef_site: MuJoCo site between the finger tips, whose position is the end effector's.
        cameras: Cameras mounted on the robot.
        action_size: Position delta (3), rotation delta (3), gripper command.
    """

    gripper_joints: tuple[str, ...]
    opening: tuple[float, ...]
    narrowest: float = 0.0
    cube_grasp: str = "as it lies"
    # The names that robosuite gives to every single arm's.
    eef_body: str = "robot0_right_hand"
    eef_site: str = "gripper0_right_grip_site"
    cameras: tuple[str, ...] = ("robot0_eye_in_hand", "robot0_robotview")
    action_size: int = 7

    def finger_opening(self, gripper_positions: Iterable[float]) -> float:
        """Return the distance between the fingers (metres) at positions of the gripper's joints (metres or radians)."""
        at_zero, *gains = self.opening
        return at_zero + sum(gain * position for gain, position in zip(gains, gripper_positions, strict=True))

    @property
    def state_size(self) -> int:
        """Length of the proprioceptive state: position (3), quaternion (4), gripper joints."""
        return 7 + len(self.gripper_joints)


_TABLE_CAMERAS = ("agentview", "birdview", "frontview", "sideview")

TASKS = {
    "Lift": TaskSpec("lift the red cube off the table", "cube_main", _TABLE_CAMERAS),
    "Stack": TaskSpec("stack the red cube on the green cube", "cubeA_main", _TABLE_CAMERAS, "cubeB_main"),
    "Door": TaskSpec("turn the handle and open the door", "Door_latch", _TABLE_CAMERAS, "Door_frame"),
    "PickPlaceCan": TaskSpec("put the can into its bin", "Can_main", _TABLE_CAMERAS[:3], "VisualCan_main"),
    "NutAssemblySquare": TaskSpec("put the square nut on the square peg", "SquareNut_main", _TABLE_CAMERAS, "peg1"),
}

_ROBOTIQ_FINGERS = (
    *("finger_joint", "left_inner_finger_joint", "left_inner_knuckle_joint"),
    *("right_outer_knuckle_joint", "right_inner_finger_joint", "right_inner_knuckle_joint"),
)
_ROBOTIQ_JOINTS = tuple(f"gripper0_right_{joint}" for joint in _ROBOTIQ_FINGERS)
_JACO_JOINTS = tuple(
    f"gripper0_right_joint_{finger}{link}" for finger in ("thumb", "index", "pinky") for link in ("", "_distal")
)


# robosuite's Robotiq 2F-85 jams on its own knuckles when it closes: its pads stay 52 mm apart, so it takes by the corners what
# is narrower than that.
_ROBOTIQ_85 = RobotSpec(
    _ROBOTIQ_JOINTS, (0.0971, -0.1108, 0.0, 0.0, 0.0, 0.0, 0.0), narrowest=0.052, cube_grasp="by its corners"
)

# The openings of the others than Panda are straight lines through the distances between the finger pads (mj_geomDistance)
# while the gripper opened and closed.
ROBOTS: dict[str, RobotSpec] = {
    "Panda": RobotSpec(("gripper0_right_finger_joint1", "gripper0_right_finger_joint2"), (0.0, 1.0, -1.0)),
    # It opens to 60 mm, the cube's diagonal.
    "Sawyer": RobotSpec(
        ("gripper0_right_l_finger_joint", "gripper0_right_r_finger_joint"),
        (0.0372, 1.0, -1.0),
        narrowest=0.013,
        cube_grasp="by its sides",
    ),
    "UR5e": _ROBOTIQ_85,
    "Kinova3": _ROBOTIQ_85,
    "IIWA": RobotSpec(_ROBOTIQ_JOINTS, (0.1289, -0.259, 0.0, 0.0, 0.0, 0.0, 0.0)),
    # It opens and closes by 0.6 mm a step: when it arrives at the cube it is no wider open than Sawyer's.
    "Jaco": RobotSpec(_JACO_JOINTS, (-0.0175, 0.084, 0.0, 0.0, 0.0, 0.0, 0.0), cube_grasp="by its sides, slowly"),
}


def look_up[Spec](kind: str, name: str, known: Mapping[str, Spec]) -> Spec:
    """Return what a user's name stands for.

    Args:
        kind: What the name is of, for the message: ``task``, ``robot``, ``camera``.
        name: The name as the user wrote it.
        known: The valid names and their meanings.

    Raises:
        ValueError: The name is unknown; the message offers the nearest one.
    """
    if name in known:
        return known[name]
    lowered = {choice.lower(): choice for choice in known}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.3)
    hint = f"did you mean {lowered[close[0]]!r}? " if close else ""
    raise ValueError(f"unknown {kind} {name!r}: {hint}valid names are {', '.join(sorted(known))}")


def cameras_of(task: TaskSpec, robot: RobotSpec) -> dict[str, str]:
    """Return the cameras of a task with a robot, as a mapping from name to where the camera is mounted."""
    return dict.fromkeys(task.cameras, "scene") | dict.fromkeys(robot.cameras, "robot")
