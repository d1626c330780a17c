"""What a hand moves a simulated robot with: the keyboard here, or a device that the environment knows.

Actions are those of a gripper moved by steps: displacement (3), rotation (3) where there is one, and the fingers, from -1
(open) to 1 (closed).
"""

from typing import Any, Protocol

import gymnasium
import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.demos.collection.by_hand.operator_window import Keys

DEVICES = ("keyboard", "spacemouse", "dualsense")

KEYS_IN_WORDS = (
    "arrows: away, toward, left, right     W S: up, down     A D: turn     I K: tilt     J L: lean     left shift: slowly",
    "space: close or open the fingers     enter: keep     backspace: discard     escape: stop",
)

# In action units of a step. At 20 Hz and 5 cm a unit, 0.3 is 30 cm/s; at 0.5 rad a unit, 0.1 is 1 rad/s.
_MOVE, _TURN, _SLOWLY = 0.3, 0.1, 0.3

# As seen by the camera that looks at the robot from the front: away from it is the robot's -x, to its right the +y.
_MOVES = {"up": (0, -1), "down": (0, 1), "left": (1, -1), "right": (1, 1), "s": (2, -1), "w": (2, 1)}
_TURNS = {"j": (0, -1), "l": (0, 1), "k": (1, -1), "i": (1, 1), "d": (2, -1), "a": (2, 1)}


class Device(Protocol):
    """What turns movements of a hand into actions."""

    def reset(self) -> None:
        """Forget the last episode: fingers open, nothing moves."""
        ...

    def read(self, keys: Keys) -> np.ndarray | None:
        """Return the action of this instant, float32 (A,), or None where the device asks to discard the episode."""
        ...


class Keyboard:
    """Moves a gripper while keys are held.

    Args:
        action_size: 4 (displacement and fingers) or 7 (with rotation).
    """

    def __init__(self, action_size: int) -> None:
        assert action_size in (4, 7)
        self._action_size = action_size
        self._fingers = -1.0

    def reset(self) -> None:
        """Open the fingers."""
        self._fingers = -1.0

    def read(self, keys: Keys) -> np.ndarray:
        """Return the action of this instant, float32 (A,)."""
        if keys.pressed.count("space") % 2:
            self._fingers = -self._fingers
        speed = _SLOWLY if "left shift" in keys.held else 1.0
        move, turn = np.zeros(3, np.float32), np.zeros(3, np.float32)
        for key in keys.held:
            for signs, vector, size in ((_MOVES, move, _MOVE), (_TURNS, turn, _TURN)):
                if key in signs:
                    axis, sign = signs[key]
                    vector[axis] += sign * size * speed
        parts = [move, [self._fingers]] if self._action_size == 4 else [move, turn, [self._fingers]]
        return np.concatenate(parts, dtype=np.float32)


class _OfEnvironment:
    """A device that the environment opened, which knows nothing of our keys."""

    def __init__(self, device: Any) -> None:  # noqa: ANN401 (`reset()` and `read()`, see `open_device`)
        self._device = device

    def reset(self) -> None:
        self._device.reset()

    def read(self, keys: Keys) -> np.ndarray | None:
        return self._device.read()


def open_device(name: str, env: gymnasium.Env) -> Device:
    """Return the device of that name for an environment that has been reset.

    Other devices than the keyboard are the environment's: its method `open_device(name)` returns an object with `reset()`
    and `read()`.

    Raises:
        UserError: The device cannot be opened, or it cannot act in this environment.
    """
    assert name in DEVICES
    shape = env.action_space.shape
    assert shape is not None
    if shape not in ((4,), (7,)):
        raise UserError(
            f"expert={name} moves one gripper by steps (actions of 4 or 7 numbers), but this task's actions have shape {shape}: "
            "choose such a task, such as env=robosuite_lift, or expert=scripted."
        )
    if name == "keyboard":
        return Keyboard(shape[0])
    inner: Any = env.unwrapped
    if not hasattr(inner, "open_device"):
        raise UserError(f"This task knows no device {name!r}: use expert=keyboard.")
    try:
        return _OfEnvironment(inner.open_device(name))
    except ValueError as error:
        raise UserError(str(error)) from error
