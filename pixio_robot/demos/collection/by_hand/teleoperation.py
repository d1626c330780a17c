"""Records demonstrations by hand into a store: in a window, in real time, one episode after the other."""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from lerobot.envs import EnvConfig
from rich.console import Console

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.versions import software_versions
from pixio_robot.demos.collection.by_hand.devices import DEVICES, KEYS_IN_WORDS, Device, open_device
from pixio_robot.demos.collection.by_hand.operator_window import OperatorWindow
from pixio_robot.demos.collection.collection import append_demonstration, new_store, open_matching
from pixio_robot.demos.collection.recording import Demonstration, ExpertEnvConfig, named_observation, names_of
from pixio_robot.demos.store.codecs import LOSSLESS, check_codec
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.environments import describe_env

# Hands are slower than scripts: an episode by hand may take so many seconds, whatever limit a policy has.
MAX_SECONDS = 120
# Less than this from rest in every action unit is a device's drift.
_DRIFT = 0.02


class _Stopped(Exception):  # noqa: N818 (it is no error)
    """The operator wants no more episodes."""


def record_by_hand(
    env_config: EnvConfig,
    store_path: str | Path,
    n_episodes: int,
    device_name: str,
    *,
    first_seed: int = 0,
    codec: str = LOSSLESS,
    console: Console | None = None,
) -> DemoStore | None:
    """Bring a store to a number of demonstrations made by hand.

    A scene waits for the first movement, so that nothing idle is recorded before it. An episode is kept when the
    environment reports success or the operator presses enter (it is then stored as no success), and discarded with
    backspace or when its time is up; each new episode has the next seed. Escape, closing the window and Ctrl-C end the
    recording, and finished episodes stay.

    Args:
        env_config: The environment, as for `collection.collect`; its limit of steps does not hold here.
        store_path: Folder of the store; made with the first kept episode where it is absent. It has the layout of one of
            scripted demonstrations, and names the device as its `expert`.
        n_episodes: Number of demonstrations wanted, those in the store included.
        device_name: One of `devices.DEVICES`.
        first_seed: The first seed to try.
        codec: How a new store keeps frames, see `DemoStore.create`.
        console: Where to show messages: standard error by default.

    Returns:
        The store; None if nothing was kept and there was none.

    Raises:
        UserError: There is no screen; the device or the environment cannot be used; the store has other demonstrations,
            is damaged or in use; or the disk is full.
    """
    console = console or Console(stderr=True)
    if device_name not in DEVICES:
        raise UserError(f"Unknown expert {device_name!r}. {nearest_name(device_name, ['scripted', *DEVICES])}")
    check_codec(codec)
    attributes = {
        "fps": env_config.fps,
        "env": describe_env(env_config),
        "first_seed": first_seed,
        "expert": device_name,
        "versions": software_versions(),
    }
    store = open_matching(Path(store_path), attributes)
    window = OperatorWindow(f"{env_config.type} {env_config.task}")
    n_before = store.num_episodes if store is not None else 0
    try:
        env, device = _prepared(env_config, device_name)
        if store is not None:
            store.begin_writing()
        seed = int(store.episode_seeds[-1]) + 1 if store is not None and store.num_episodes else first_seed
        for line in KEYS_IN_WORDS:
            console.print(line, highlight=False)
        operator = _Operator(env, device, window, env_config.fps)
        while (n_kept := store.num_episodes if store is not None else 0) < n_episodes:
            demonstration = operator.demonstrate(seed, f"episode {n_kept + 1} of {n_episodes}")
            if demonstration is not None:
                store = store or new_store(store_path, demonstration, attributes, codec)
                append_demonstration(store, demonstration)
            seed += 1
    except _Stopped:
        pass
    finally:
        window.close()
        if store is not None:
            store.close()
        n_kept = store.num_episodes if store is not None else 0
        console.print(
            f"{n_kept - n_before} demonstrations recorded by {device_name}; {store_path} has {n_kept} of {n_episodes}.",
            highlight=False,
        )
    return store


def _prepared(env_config: EnvConfig, device_name: str) -> tuple[gymnasium.Env, Device]:
    """Make the environment, with the time a hand needs, and open the device."""
    patient: Any = env_config
    if hasattr(env_config, "episode_length"):
        try:
            patient = dataclasses.replace(env_config, episode_length=MAX_SECONDS * env_config.fps)  # pyright: ignore[reportCallIssue]
        except ValueError:  # a simulator with a limit of its own
            patient = env_config
    if not hasattr(patient, "make_env"):
        raise UserError(
            f"Nothing can be recorded in the environment {env_config.type!r}: choose one of ours, such as env=robosuite_lift."
        )
    recordable: ExpertEnvConfig = patient
    try:
        env = recordable.make_env()
        env.reset(seed=0)
    except ValueError as error:
        # Plugins know nothing of our UserError: theirs is a ValueError with the same kind of sentence.
        raise UserError(str(error)) from error
    return env, open_device(device_name, env)


class _Operator:
    """Someone at the window, who acts in an environment."""

    def __init__(self, env: gymnasium.Env, device: Device, window: OperatorWindow, fps: int) -> None:
        self._env, self._device, self._window, self._fps = env, device, window, fps
        self._task: str = env.unwrapped.task_description  # pyright: ignore[reportAttributeAccessIssue] (LeRobot's contract)
        self._last = ""

    def demonstrate(self, seed: int, episode_name: str) -> Demonstration | None:
        """Return the episode of a seed, or None if it is not to be kept.

        Raises:
            _Stopped: The operator has enough.
        """
        observation, _ = self._env.reset(seed=seed)
        self._device.reset()
        rest: np.ndarray | None = None
        steps: list[dict[str, np.ndarray]] = []
        while True:
            state = f"{len(steps) / self._fps:.1f} s" if steps else "waiting for you to move"
            lines = (f"{self._task}     {episode_name}: {state}     {self._last}", *KEYS_IN_WORDS)
            self._window.show(observation["pixels"], lines)
            keys = self._window.keys(self._fps)
            action = self._device.read(keys)
            if keys.closed or "escape" in keys.pressed:
                raise _Stopped
            if action is None or "backspace" in keys.pressed:
                return self._note("discarded")
            if "return" in keys.pressed and steps:
                self._note("kept by key")
                return self._demonstration(steps, seed, False)
            rest = np.append(np.zeros(len(action) - 1), -1.0) if rest is None else rest
            if not steps and np.abs(action - rest).max() < _DRIFT:
                continue
            steps.append(named_observation(observation) | {"action": action})
            observation, _, terminated, truncated, info = self._env.step(action)
            if terminated:
                self._note("kept: success" if info["is_success"] else "kept")
                return self._demonstration(steps, seed, bool(info["is_success"]))
            if truncated:
                return self._note("discarded: its time was up")

    def _note(self, what: str) -> None:
        self._last = f"(last one {what})"

    def _demonstration(self, steps: list[dict[str, np.ndarray]], seed: int, success: bool) -> Demonstration:
        data = {key: np.stack([step[key] for step in steps]) for key in steps[0]}
        return Demonstration(data, seed, success, self._task, names_of(self._env))
