"""Settings of every job that drives a robot."""

from pathlib import Path
from typing import Any, Literal

from pixio_robot.common.settings import NonNegative, Place, Positive, Switch, Text, settings


@settings(kw_only=True)
class Caution:
    """How far what drives a real robot is trusted."""

    names: Literal["artifact", "robot"] = "artifact"
    """robot=lerobot: where numbers that the artifact or recording does not name get their names; robot: from the robot, \
in its order."""
    action_space: Literal["absolute", "delta", "velocity"] | None = None
    """robot=lerobot: what an action is, where the artifact or recording does not say."""
    step_factor: Positive = 1.5
    """robot=lerobot: how much further than in the demonstrations a number may move in a control period."""
    largest_step: Positive | None = None
    """robot=lerobot: or how far every number may move in one, in its own unit."""
    ramp: NonNegative = 2
    """robot=lerobot: seconds in which the largest step grows from nothing."""
    call_timeout: Positive = 0.5
    """robot=lerobot: seconds after which a call of the robot's driver counts as hanging."""


@settings(kw_only=True)
class Driving(Caution):
    """Which robot, and how far what drives it is trusted."""

    robot: dict[str, Any]
    """The robot: `sim`, or one of LeRobot's, whose fields are given as +robot.port=/dev/ttyACM0."""
    dry_run: Switch = False
    """Show what would be sent beside where the robot stands, say whether it may be driven, and send nothing."""
    output_root: Place = Path("outputs")
    """Folder of everything that is written."""
    run: Text | None = None
    """robot=sim: name of the folder of the record under `<output_root>/<job>`; null takes the time."""

    @property
    def description(self) -> dict[str, Any]:
        """A LeRobot robot's `type` and the fields of its config."""
        return {name: value for name, value in self.robot.items() if name != "kind"}
