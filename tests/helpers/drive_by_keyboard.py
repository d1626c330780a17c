"""Drives `pixio_sim` with LeRobot's `keyboard_ee` on the screen in DISPLAY, a key at a time; prints what was sent as JSON."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from lerobot.teleoperators.keyboard import KeyboardEndEffectorTeleop, KeyboardEndEffectorTeleopConfig
from lerobot_env_pixio import SimulatedRobotConfig
from lerobot_env_pixio.simulated_robot import SimulatedRobot
from virtual_screen import XKeys

KEYS = ("Up", "Left", "Shift_L", "Control_R", "a", "Control_L")


def main(folder: Path) -> None:
    robot = SimulatedRobot(
        SimulatedRobotConfig(
            env="pixio_metaworld", image_size=32, by_deltas=True, delta_scale=0.5, calibration_dir=folder
        )
    )
    keyboard = KeyboardEndEffectorTeleop(KeyboardEndEffectorTeleopConfig(calibration_dir=folder))
    assert list(robot.action_features) == list(keyboard.action_features["names"])
    keyboard.connect()
    robot.connect()
    listener: Any = keyboard.listener
    listener.wait()
    keys, said = XKeys(os.environ["DISPLAY"]), {}
    for key in KEYS:
        keys.press(key, True)
        while keyboard.event_queue.empty():  # the listener is a thread of its own
            time.sleep(0.01)
        start = robot.get_observation()
        sent = [robot.send_action(keyboard.get_action()) for _ in range(5)][-1]
        end = robot.get_observation()
        said[key] = {
            "sent": sent,
            "moved": {name: float(end[name] - start[name]) for name in ("x.pos", "y.pos", "z.pos")},
        }
        keys.press(key, False)
        while keyboard.event_queue.empty():
            time.sleep(0.01)
    robot.disconnect()
    keyboard.disconnect()
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
