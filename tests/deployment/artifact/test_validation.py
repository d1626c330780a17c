"""Metadata are believed only if every entry is what its table says: else one sentence that names it."""

import copy
from typing import Any

import pytest
from recorded_robot import DESCRIBED

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.metadata import KEYS, check_metadata

SOUND = {**dict.fromkeys(KEYS), **DESCRIBED}
NONSENSE: list[tuple[str, Any]] = [
    ("action.minimum", [float("nan"), 0.0, 0.0]),
    ("action.maximum", [float("inf"), 1.0, 1.0]),
    ("action.maximum", [1e39, 1.0, 1.0]),  # infinite in float32
    ("action.maximum", [True, 1.0, 1.0]),
    ("action.minimum", [2.0, 0.0, 0.0]),  # above the maximum
    ("action.minimum", None),
    ("action.largest_change", [0.1, -0.1, 0.1]),
    ("action.largest_value", [0.1, 0.1]),
    ("action.names", ["a", "a", "b"]),
    ("action.names", ["a", "b"]),
    ("action.size", 3.0),
    ("action.space", ""),
    ("action.limits_from", "nowhere"),
    ("state.size", True),
    ("state.key", "state"),
    ("cameras", {"front": 1}),
    ("cameras", [{**DESCRIBED["cameras"][0], "height": 0}]),
    ("cameras", [{**DESCRIBED["cameras"][0], "colour_order": "GRB"}]),
    ("cameras", DESCRIBED["cameras"] * 2),
    ("control_rate_hz", float("inf")),
    ("control_rate_hz", float("nan")),
    ("control_rate_hz", 0),
    ("control_rate_hz", "50"),
    ("action_horizon", 0),
    ("executed_actions", -1),
    ("observation_horizon", 10**12),
    ("noise", {"key": "noise", "shape": [8, 2]}),  # of an action of 3
    ("noise", {"key": "observation.state", "shape": [8, 3]}),
    ("kind", "robot"),
    ("devices", "cpu"),
    ("precision", "float8"),
    ("normalisation", None),
]


def test_sound_metadata_are_taken_and_older_ones_lack_steps() -> None:
    check_metadata(SOUND, "this")
    older = copy.deepcopy(SOUND)
    del older["action"]["largest_change"], older["action"]["largest_value"]
    check_metadata(older, "this")


@pytest.mark.parametrize(("path", "value"), NONSENSE)
def test_nonsense_is_named(path: str, value: object) -> None:
    metadata = copy.deepcopy(SOUND)
    *parents, name = path.split(".")
    group: Any = metadata
    for parent in parents:
        group = group[parent]
    group[name] = value
    with pytest.raises(UserError, match=r"The metadata of this cannot be right \(.*, expected .*\): export") as caught:
        check_metadata(metadata, "this")
    assert f"({path.partition('.')[0]}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
