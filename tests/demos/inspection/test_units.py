"""Units are those of the robot that a recording names, and unknown where nothing decides them."""

from pytest import mark

from pixio_robot.demos.inspection.units import UNKNOWN_UNIT, units_of

ARM = ["shoulder_pan.pos", "gripper.pos"]


@mark.parametrize(
    ("attributes", "names", "units"),
    [
        ({"env": {"type": "pixio_robosuite"}}, ["x.pos", "qw.pos", "finger_1.pos"], ["m", "quaternion", "m"]),
        ({"env": {"type": "pixio_aloha"}}, ["left_waist.pos", "left_gripper.pos"], ["rad", "0 closed, 1 open"]),
        ({"env": {"type": "pixio_adroit"}}, ["joint_0.pos"], [UNKNOWN_UNIT]),
        ({"robot_type": "so101_follower"}, ARM, ["degrees or -100 to 100", "0 to 100"]),
        ({"robot_type": "another"}, ARM, [UNKNOWN_UNIT] * 2),
        ({}, ARM, [UNKNOWN_UNIT] * 2),
        ({"env": "a word"}, ARM, [UNKNOWN_UNIT] * 2),
    ],
)
def test_units(attributes: dict, names: list[str], units: list[str]) -> None:
    key = "observation.state"
    assert units_of(attributes, {key: names}, {key: len(names)}) == {key: units}


def test_numbers_without_names_have_no_unit() -> None:
    assert units_of({"robot_type": "so101_follower"}, {}, {"action": 3}) == {"action": [UNKNOWN_UNIT] * 3}
