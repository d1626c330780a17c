"""robosuite's input devices, such as a SpaceMouse, for whoever demonstrates a task by hand."""

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from robosuite.environments.base import MujocoEnv

# Names of their classes.
_CLASSES = {"spacemouse": "SpaceMouse", "dualsense": "DualSense"}


class RobosuiteDevice:
    """A device of robosuite's that moves the first robot of a simulation.

    Args:
        simulation: robosuite's environment, with one single-armed robot under OSC_POSE.
        name: ``spacemouse``, or ``dualsense`` where robosuite has it.

    Raises:
        ValueError: The name is unknown, robosuite cannot import the device, or it is not plugged in.
    """

    def __init__(self, simulation: "MujocoEnv", name: str) -> None:
        if name not in _CLASSES:
            raise ValueError(f"unknown device {name!r}: robosuite has {', '.join(_CLASSES)}")
        printed = io.StringIO()  # robosuite prints what it could not import, and the device its controls
        try:
            with contextlib.redirect_stdout(printed):
                import robosuite.devices
        except ImportError as error:  # by pynput, where there is no screen
            raise ValueError(f"robosuite's input devices cannot be imported here ({_line(error)})") from error
        device_class = getattr(robosuite.devices, _CLASSES[name], None)
        if device_class is None:
            raise ValueError(
                f"the device {name!r} needs what is not installed: `pip install hidapi`, or a robosuite that has "
                f"robosuite.devices.{_CLASSES[name]} (here is {robosuite.__version__})"
            )
        try:
            with contextlib.redirect_stdout(printed):
                self._device = device_class(simulation)
        except Exception as error:  # each driver fails with types of its own
            raise ValueError(
                f"the device {name!r} cannot be opened ({_line(error)}): plug it in, and see that this user may read it"
            ) from error

    def reset(self) -> None:
        """Start to listen, with the fingers open."""
        self._device.start_control()

    def read(self) -> np.ndarray | None:
        """Return the present action, float32 (A,), or None where the device's reset button was pressed."""
        parts = self._device.input2action()
        if parts is None:
            return None
        arm = self._device.active_arm
        return np.concatenate([parts[f"{arm}_delta"], parts[f"{arm}_gripper"]], dtype=np.float32)


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
