"""The simulated robot under LeRobot's tools: it stays while somebody records, and tells what a recorder does not ask for."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drive_by_keyboard
import numpy as np
import pygame
import pytest
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.dataset_tools import merge_datasets
from lerobot.teleoperators.gamepad import GamepadTeleop, GamepadTeleopConfig
from lerobot.utils.constants import ACTION, OBS_STR
from lerobot.utils.feature_utils import build_dataset_frame, hw_to_dataset_features
from lerobot.utils.utils import log_say
from lerobot_env_pixio import SimulatedRobotConfig
from lerobot_env_pixio.simulated_robot import SimulatedRobot
from virtual_screen import virtual_display  # noqa: F401 (a fixture)

from pixio_robot.demos.formats.lerobot import export_lerobot, import_lerobot

FPS = 10  # PushT's


@pytest.fixture(autouse=True)
def heard_log() -> Iterator[None]:
    """LeRobot's tools open the log; it is theirs that the robot follows."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.INFO)
    yield
    logging.getLogger().setLevel(level)


def robot(tmp_path: Path, **fields: Any) -> SimulatedRobot:
    settings = {"env": "pixio_pusht", "image_size": 32, "calibration_dir": tmp_path, **fields}
    return SimulatedRobot(SimulatedRobotConfig(**settings))


def announce(text: str) -> None:
    log_say(text, play_sounds=False)


def push(robot: SimulatedRobot, steps: int, dataset: LeRobotDataset | None = None, x: float = 100.0) -> list[float]:
    """Do as `lerobot-record` in its loop; returns where the robot was before the first step."""
    start = [robot.get_observation()[name] for name in ("x.pos", "y.pos")]
    for _ in range(steps):
        observed, action = robot.get_observation(), {"x.pos": x, "y.pos": 400.0}
        robot.send_action(action)
        if dataset is not None:
            frame = build_dataset_frame(dataset.features, observed, prefix=OBS_STR)
            dataset.add_frame(frame | build_dataset_frame(dataset.features, action, prefix=ACTION) | {"task": "push"})
    return start


def test_an_episode_that_is_over_is_followed_by_the_next_only_if_asked_and_not_while_recording(tmp_path: Path) -> None:
    staying = robot(tmp_path, episode_length=3)
    staying.connect()
    push(staying, 3)
    last = push(staying, 2)
    assert push(staying, 1) == last
    staying.disconnect()
    going_on = robot(tmp_path, episode_length=3, next_by_itself=True)
    going_on.connect()
    first = push(going_on, 3)
    second = push(going_on, 1)
    announce("Recording episode 0")
    assert push(going_on, 6) == first
    assert push(going_on, 1) not in (first, second)
    announce("Stop recording")
    going_on.disconnect()


def test_a_corrected_policy_stands_still_while_it_is_paused_and_goes_on_in_the_next_scene(tmp_path: Path) -> None:
    corrected = robot(tmp_path, episode_length=4, next_by_itself=True)
    corrected.connect()
    push(corrected, 2)
    announce("Phase transition: autonomous -> paused")
    paused_at = push(corrected, 5)
    assert push(corrected, 0) == paused_at
    announce("Phase transition: paused -> correcting")
    push(corrected, 2)
    corrected_to = push(corrected, 3)  # its time is over, and no new scene comes into a correction
    assert push(corrected, 0) == corrected_to != paused_at
    announce("Phase transition: correcting -> paused")
    announce("Phase transition: paused -> autonomous")
    push(corrected, 0)
    assert corrected._seed == 1 and corrected._steps == 0
    corrected.disconnect()


def test_every_recorded_episode_begins_with_its_own_scene_and_the_same_when_it_is_repeated(tmp_path: Path) -> None:
    recorded = robot(tmp_path, seed=3)
    recorded.connect()
    starts = []
    for text in ("Recording episode 0", "Recording episode 1", "Recording episode 1"):
        announce(text)
        starts.append(push(recorded, 2))
        announce("Reset the environment")
        push(recorded, 2)
        announce("Re-record episode")
    recorded.disconnect()
    assert starts[1] == starts[2] != starts[0]
    fresh = robot(tmp_path, seed=4)
    fresh.connect()
    assert push(fresh, 0) == starts[1]
    fresh.disconnect()


def test_a_recording_has_success_seeds_and_environment_and_merges_with_a_converted_one(tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    recorded = robot(tmp_path, seed=5, recording=str(recording))
    features: dict[str, dict] = {
        **hw_to_dataset_features(recorded.action_features, ACTION, use_video=False),
        **hw_to_dataset_features(recorded.observation_features, OBS_STR, use_video=False),
    }
    with pytest.raises(ValueError, match="no LeRobotDataset"):
        recorded.connect()
    dataset = LeRobotDataset.create(
        "local/recording", FPS, features, root=recording, robot_type=recorded.name, use_videos=False
    )
    recorded.connect()
    recorded._env._execute = lambda action: (0.0, recorded._seed == 6 and recorded._steps == 1)  # the second succeeds
    for number in range(2):
        announce(f"Recording episode {number}")
        push(recorded, 3, dataset, x=900.0)  # beyond what the task can do: what was done is recorded
        announce("Reset the environment")
        push(recorded, 1)
        dataset.save_episode()
    announce("Stop recording")
    dataset.finalize()
    recorded.disconnect()

    store = import_lerobot(recording, tmp_path / "store.zarr")
    assert store.episode_seeds.tolist() == [5, 6] and store.episode_success.tolist() == [0, 1]
    assert store.attributes["env"]["type"] == "pixio_pusht" and store.attributes["env"]["image_size"] == 32
    assert store.episode(0)["action"].tolist() == [[512.0, 400.0]] * 3
    export_lerobot(store, tmp_path / "converted", "local/converted", use_videos=False)
    read: list[Any] = [
        LeRobotDataset(f"local/{name}", root=tmp_path / name, video_backend="pyav")
        for name in ("recording", "converted")
    ]
    assert read[0].meta.stats["next.success"]["max"] == 1 and read[0].meta.stats["action"]["max"][0] == 512
    merged: Any = merge_datasets(read, "local/merged", tmp_path / "merged")
    succeeded = [bool(merged[index]["next.success"]) for index in range(12)]
    assert np.flatnonzero(succeeded).tolist() == [5, 11]
    assert json.loads((tmp_path / "merged/meta/info.json").read_text())["robot_type"] == "pixio_sim"


def test_a_recording_at_another_rate_is_refused(tmp_path: Path) -> None:
    recorded = robot(tmp_path, recording=str(tmp_path / "recording"))
    features = hw_to_dataset_features(recorded.action_features, ACTION)
    LeRobotDataset.create("local/recording", 30, features, root=tmp_path / "recording", use_videos=False)
    with pytest.raises(ValueError, match="--dataset.fps=10"):
        recorded.connect()


class _Stick:
    """What pygame gives of a stick that is pushed away from its owner and to the right."""

    def get_axis(self, number: int) -> float:
        return {0: 0.5, 1: -1.0, 3: 0.05}[number]

    def get_button(self, number: int) -> bool:
        return False


def test_a_gamepad_moves_the_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LeRobot's device and its controller as they are, on a stick of ours and pygame's own events."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    teleoperator: Any = GamepadTeleop(GamepadTeleopConfig(calibration_dir=tmp_path))
    teleoperator.connect()  # there is no gamepad here
    teleoperator.gamepad.joystick = _Stick()

    def button(kind: int, number: int) -> None:
        pygame.event.post(pygame.event.Event(kind, button=number))

    driven = robot(tmp_path, env="pixio_metaworld", by_deltas=True, delta_scale=0.5)
    assert list(driven.action_features) == list(teleoperator.action_features["names"])
    driven.connect()
    start = driven.get_observation()
    sent = [driven.send_action(teleoperator.get_action()) for _ in range(5)]
    button(pygame.JOYBUTTONDOWN, 6)
    sent.append(driven.send_action(teleoperator.get_action()))
    button(pygame.JOYBUTTONUP, 6)
    sent.append(driven.send_action(teleoperator.get_action()))
    assert sent[0] == {"x.vel": 0.5, "y.vel": -0.25, "z.vel": 0.0, "gripper.pos": -1.0}
    assert [each["gripper.pos"] for each in sent] == [-1.0] * 5 + [1.0] * 2
    end = driven.get_observation()
    assert end["x.pos"] > start["x.pos"] and end["y.pos"] < start["y.pos"]
    place = {name: start[name] for name in ("x.pos", "y.pos", "z.pos", "gripper.pos")}
    assert driven.send_action(place) == {}  # as at the end of a rollout; it goes by steps
    driven.disconnect()
    pygame.quit()


@pytest.mark.slow  # needs Xvfb, which .ci/run installs, and another process for LeRobot to see the screen in
def test_a_keyboard_moves_the_arm(display: str, tmp_path: Path) -> None:
    environment = {**os.environ, "DISPLAY": display, "MUJOCO_GL": os.environ.get("MUJOCO_GL") or "egl"}
    environment.pop("WAYLAND_DISPLAY", None)
    command = [sys.executable, drive_by_keyboard.__file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    sent = {key: [each["sent"][name] for name in ("x.vel", "y.vel", "z.vel")] for key, each in said.items()}
    assert sent == {
        "Up": [0, -0.5, 0],
        "Left": [0.5, 0, 0],
        "Shift_L": [0, 0, -0.5],
        **{key: [0, 0, 0] for key in ("Control_R", "a", "Control_L")},
    }
    assert [each["sent"]["gripper.pos"] for each in said.values()] == [-1, -1, -1, -1, -1, 1]
    moved = {key: each["moved"] for key, each in said.items()}
    assert moved["Up"]["y.pos"] < 0 and moved["Left"]["x.pos"] > 0 and moved["Shift_L"]["z.pos"] < 0


def test_what_is_not_driven_by_deltas_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not driven by deltas: its action is x\.pos, y\.pos"):
        robot(tmp_path, by_deltas=True)
