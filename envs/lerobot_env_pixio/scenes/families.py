"""Which scenes frames are taken from, and which shard of frames belongs to which scene."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lerobot_env_pixio.simulators.tasks import look_up

FRAMES_PER_SHARD = 512
# how many of all frames each simulator gives, when all its families are chosen
SIMULATOR_SHARES = {"robosuite": 0.45, "metaworld": 0.2, "procedural": 0.2, "aloha": 0.08, "pusht": 0.07}


@dataclass(frozen=True)
class Family:
    """One scene that is compiled once and then randomised in place.

    Attributes:
        simulator: Where the scene comes from; a key of `SIMULATOR_SHARES`.
        task: What that simulator calls the scene: robosuite's environment, the stem of Meta-World's or gym-aloha's
            XML file, `table`, `arm` or `room` for procedural scenes.
        robots: Robot of each arm, where the simulator has a choice.
        gripper: Gripper of every arm; robosuite's default for the robot when None.
        weight: Share of the simulator's frames, relative to its other families.
    """

    simulator: str
    task: str
    robots: tuple[str, ...] = ()
    gripper: str | None = None
    weight: float = 1


def _robosuite(task: str, robots: tuple[str, ...], gripper: str | None = None, weight: float = 1) -> Family:
    return Family("robosuite", task, robots, gripper, weight)


# Meta-World's 50 tasks share 44 scenes; those left out differ from one of these in nothing that can be seen.
_METAWORLD_SCENES = (
    "assembly_peg", "basketball", "bin_picking", "box", "button_press", "button_press_topdown_wall", "coffee", "dial",
    "door_lock", "door_pull", "drawer", "faucet", "hammer", "handle_press", "handle_press_sideways", "laptop",
    "lever_pull", "peg_insertion_side", "peg_unplug_side", "pick_out_of_hole", "pick_place_v3", "pick_place_wall_v3",
    "plate_slide", "reach_push_pick_and_place", "shelf_placing", "shelf_removing", "soccer", "stick_obj",
    "sweep_tool", "table_with_hole", "window", "window_horizontal",
)  # fmt: skip

# robosuite's Sawyer is missing: MuJoCo 3.8 refuses one of its meshes ("mesh volume is too small: head_1").
FAMILIES: dict[str, Family] = {
    "lift_panda": _robosuite("Lift", ("Panda",), weight=6),
    "stack_panda": _robosuite("Stack", ("Panda",), weight=2),
    "lift_panda_robotiq140": _robosuite("Lift", ("Panda",), "Robotiq140Gripper"),
    "lift_panda_rethink": _robosuite("Lift", ("Panda",), "RethinkGripper"),
    "lift_ur5e": _robosuite("Lift", ("UR5e",)),
    "lift_iiwa": _robosuite("Lift", ("IIWA",)),
    "lift_jaco": _robosuite("Lift", ("Jaco",)),
    "lift_kinova3": _robosuite("Lift", ("Kinova3",)),
    "stack_ur5e": _robosuite("Stack", ("UR5e",), "PandaGripper"),
    "stack_jaco": _robosuite("Stack", ("Jaco",)),
    "pick_place_panda": _robosuite("PickPlace", ("Panda",)),
    "pick_place_iiwa": _robosuite("PickPlace", ("IIWA",), "PandaGripper"),
    "can_kinova3": _robosuite("PickPlaceCan", ("Kinova3",)),
    "nut_assembly_panda": _robosuite("NutAssembly", ("Panda",)),
    "square_ur5e": _robosuite("NutAssemblySquare", ("UR5e",)),
    "door_panda": _robosuite("Door", ("Panda",)),
    "door_iiwa": _robosuite("Door", ("IIWA",)),
    "wipe_panda": _robosuite("Wipe", ("Panda",)),
    "wipe_kinova3": _robosuite("Wipe", ("Kinova3",)),
    "tool_hang_panda": _robosuite("ToolHang", ("Panda",)),
    "two_arm_lift": _robosuite("TwoArmLift", ("Panda", "UR5e")),
    "two_arm_handover": _robosuite("TwoArmHandover", ("Panda", "Kinova3")),
    **{f"metaworld_{scene}": Family("metaworld", f"sawyer_{scene}") for scene in _METAWORLD_SCENES},
    "procedural_table": Family("procedural", "table", weight=2),
    "procedural_arm": Family("procedural", "arm", weight=2),
    "procedural_room": Family("procedural", "room", weight=1),
    "aloha_transfer_cube": Family("aloha", "bimanual_viperx_transfer_cube"),
    "aloha_insertion": Family("aloha", "bimanual_viperx_insertion"),
    "pusht": Family("pusht", "PushT"),
}


def family_shares(families: Iterable[str]) -> dict[str, float]:
    """Return which share of all frames each of the families gives; the shares add up to one.

    Raises:
        ValueError: A family is unknown (the message offers the nearest), or none is given.
    """
    total = dict.fromkeys(SIMULATOR_SHARES, 0.0)
    for family in FAMILIES.values():
        total[family.simulator] += family.weight
    chosen = {name: look_up("scene family", name, FAMILIES) for name in families}
    if not chosen:
        raise ValueError("nothing to render: families must name at least one scene family.")
    shares = {
        name: SIMULATOR_SHARES[family.simulator] * family.weight / total[family.simulator]
        for name, family in chosen.items()
    }
    return {name: share / sum(shares.values()) for name, share in shares.items()}


def _turns(shares: dict[str, float]) -> Iterator[str]:
    """Yield families for ever so that after any number of turns each has had its share, to about one turn."""
    credit = dict.fromkeys(shares, 0.0)
    while True:
        for name, share in shares.items():
            credit[name] += share
        # rounding keeps the order from depending on the last bit of a sum
        turn = max(credit, key=lambda name: round(credit[name], 6))
        credit[turn] -= 1
        yield turn


def shard_families(shards: int, families: Iterable[str]) -> list[str]:
    """Return the family that each of the first shards of `FRAMES_PER_SHARD` consecutive frames is taken from.

    The families take turns as often as their shares say, so a longer rendering only adds frames to a shorter one.
    """
    return list(itertools.islice(_turns(family_shares(families)), shards))
