"""Which robosuite scenes frames are taken from, and which frame index belongs to which scene."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

FRAMES_PER_SHARD = 64


@dataclass(frozen=True)
class Family:
    """One compiled scene: a robosuite task with its robots.

    Attributes:
        task: Name of a robosuite environment.
        robots: Robot of each arm.
        gripper: Gripper of every arm; robosuite's default for the robot when None.
        weight: How many shards of a round over all families this family gets.
    """

    task: str
    robots: tuple[str, ...]
    gripper: str | None = None
    weight: int = 1


# Sawyer is missing: MuJoCo 3.8 refuses one of its meshes ("mesh volume is too small: head_1").
FAMILIES: dict[str, Family] = {
    "lift_panda": Family("Lift", ("Panda",), weight=6),
    "stack_panda": Family("Stack", ("Panda",), weight=2),
    "lift_panda_robotiq140": Family("Lift", ("Panda",), "Robotiq140Gripper"),
    "lift_panda_rethink": Family("Lift", ("Panda",), "RethinkGripper"),
    "lift_ur5e": Family("Lift", ("UR5e",)),
    "lift_iiwa": Family("Lift", ("IIWA",)),
    "lift_jaco": Family("Lift", ("Jaco",)),
    "lift_kinova3": Family("Lift", ("Kinova3",)),
    "stack_ur5e": Family("Stack", ("UR5e",), "PandaGripper"),
    "stack_jaco": Family("Stack", ("Jaco",)),
    "pick_place_panda": Family("PickPlace", ("Panda",)),
    "pick_place_iiwa": Family("PickPlace", ("IIWA",), "PandaGripper"),
    "can_kinova3": Family("PickPlaceCan", ("Kinova3",)),
    "nut_assembly_panda": Family("NutAssembly", ("Panda",)),
    "square_ur5e": Family("NutAssemblySquare", ("UR5e",)),
    "door_panda": Family("Door", ("Panda",)),
    "door_iiwa": Family("Door", ("IIWA",)),
    "wipe_panda": Family("Wipe", ("Panda",)),
    "wipe_kinova3": Family("Wipe", ("Kinova3",)),
    "tool_hang_panda": Family("ToolHang", ("Panda",)),
    "two_arm_lift": Family("TwoArmLift", ("Panda", "UR5e")),
    "two_arm_handover": Family("TwoArmHandover", ("Panda", "Kinova3")),
}


def check_families(names: Iterable[str]) -> None:
    """Raise ValueError, naming the closest choice, when one of the names is no scene family."""
    for name in names:
        if name not in FAMILIES:
            close = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0.3)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"unknown scene family {name!r}: {hint}choose from {', '.join(FAMILIES)}.")


def shard_family(shard: int, families: Iterable[str]) -> str:
    """Return the family that a shard of `FRAMES_PER_SHARD` consecutive frames is taken from.

    The families take turns, each as often in a round as its weight says, so a longer rendering only adds
    frames to a shorter one.
    """
    chosen = tuple(families)
    rounds = range(max(FAMILIES[name].weight for name in chosen))
    turns = [name for turn in rounds for name in chosen if FAMILIES[name].weight > turn]
    return turns[shard % len(turns)]
