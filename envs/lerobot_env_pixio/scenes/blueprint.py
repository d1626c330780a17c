"""What a simulator's adapter says of one of its scenes, before it is compiled."""

from collections.abc import Callable
from dataclasses import dataclass

import mujoco

from lerobot_env_pixio.perturbations.distractors import Surface

VISUAL_GROUP = 1  # once compiled, geoms that are drawn are in this group
HIDDEN_GROUP = 4  # and those that are not in this one


@dataclass(frozen=True)
class ArmNames:
    """The names of one robot arm's parts.

    Attributes:
        site: Site between the fingertips.
        joints: What the names of the arm's joints start with.
        gripper_joints: What the names of the gripper's joints start with.
    """

    site: str
    joints: tuple[str, ...]
    gripper_joints: tuple[str, ...]


@dataclass(frozen=True)
class Parts:
    """Patterns (`re.search`) that sort geoms by `<body>|<geom>`; a geom without a name bears its body's."""

    robot: str
    gripper: str
    table: str
    floor: str = r"\|pixio_floor"
    wall: str = r"\|pixio_wall"


@dataclass(frozen=True)
class Blueprint:
    """A scene that can be compiled.

    Attributes:
        spec: The simulator's scene; the stock of distractors, lights and surroundings is added to it.
        place: Writes the initial posture into data (and model, where bodies of the scene are moved).
        visual_groups: Geom groups that the simulator draws.
        arms: The robot's arms.
        surfaces: Where objects stand.
        parts: How geoms are told apart.
        cameras: The task's own cameras, the usual ones first.
        usual_cameras: How many of `cameras` the task is usually seen from.
        wrist_cameras: Cameras on the robot's hands.
        furniture: Bodies without joints that an arrangement shifts and turns.
        floor_height: Height of the floor to add, in metres, or None when the scene has one.
        scale: Size of the workspace in relation to a table that one arm reaches; objects and distances go with it.
    """

    spec: mujoco.MjSpec
    place: Callable[[mujoco.MjModel, mujoco.MjData], None]
    visual_groups: tuple[int, ...]
    arms: tuple[ArmNames, ...]
    surfaces: tuple[Surface, ...]
    parts: Parts
    cameras: tuple[str, ...]
    usual_cameras: int
    wrist_cameras: tuple[str, ...]
    furniture: tuple[str, ...] = ()
    floor_height: float | None = None
    has_walls: bool = False
    scale: float = 1.0
