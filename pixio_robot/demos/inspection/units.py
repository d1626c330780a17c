"""In which unit each number of a recording is, as far as its robot decides it: a name alone never does."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pixio_robot.demos.store.layout import INTERVENTION

UNKNOWN_UNIT = "unit unknown"
_STATE, _ACTION = "observation.state", "action"
_SHARE = "share of the largest"

_SO_ARM = {r".*gripper\.pos": "0 to 100", r".*\.pos": "degrees or -100 to 100"}

# By type of environment or robot and by key: patterns of names, of which the first that fits counts.
_UNITS: dict[str, dict[str, dict[str, str]]] = {
    "pixio_robosuite": {
        _STATE: {r"[xyz]\.pos|finger_\d+\.pos": "m", r"q[xyzw]\.pos": "quaternion"},
        _ACTION: {r".*\.vel": _SHARE, r"gripper\.pos": "-1 open, 1 closed"},
    },
    "pixio_metaworld": {
        _STATE: {r"[xyz]\.pos": "m", r"gripper\.pos": "0 closed, 1 open"},
        _ACTION: {r".*\.vel": "cm", r"gripper\.pos": "share of the effort"},
    },
    "pixio_aloha": {key: {r".*_gripper\.pos": "0 closed, 1 open", r".*\.pos": "rad"} for key in (_STATE, _ACTION)},
    "pixio_adroit": {_ACTION: {r"joint_\d+\.pos": "share of its range"}},  # of the state, arms that slide have metres
    "pixio_dmc": {_ACTION: {r"actuator_\d+\.pos": "share of the effort"}},
    "pixio_pusht": {key: {r"[xy]\.pos": "px of 512"} for key in (_STATE, _ACTION)},
    # LeRobot's arms: joints in degrees or from -100 to 100, by a setting that no dataset keeps.
    **{arm: {_STATE: _SO_ARM, _ACTION: _SO_ARM} for arm in ("so100_follower", "so101_follower", "bi_so_follower")},
}


def units_of(
    attributes: Mapping[str, Any], names: Mapping[str, Sequence[str]], sizes: Mapping[str, int]
) -> dict[str, list[str]]:
    """Return the unit of every number by key; `UNKNOWN_UNIT` where the recording does not decide it.

    Args:
        attributes: Of the store: `env` or `robot_type`.
        names: Of the numbers, by key, where they are known.
        sizes: How many numbers each key has.
    """
    env = attributes.get("env")
    kind = (env.get("type") if isinstance(env, Mapping) else None) or attributes.get("robot_type")
    patterns = {INTERVENTION: {".*": "0 or 1"}} | _UNITS.get(str(kind), {})
    return {
        key: [_unit(patterns.get(key, {}), name) for name in names.get(key) or [""] * size]
        for key, size in sizes.items()
    }


def _unit(patterns: Mapping[str, str], name: str) -> str:
    return next((unit for pattern, unit in patterns.items() if re.fullmatch(pattern, name)), UNKNOWN_UNIT)
