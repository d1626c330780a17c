"""What an inspection of a demonstration store reports, and whether the store says at what rate it was recorded.

Letters of shape suffixes: T steps, D dimensions of a signal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixio_robot.demos.clock import clock_fault

# Kinds of findings, the worst first.
DAMAGED, NON_FINITE, FROZEN_CAMERA, JUMP, WRONG_FPS, IDLE = KINDS = (
    "damaged",
    "non_finite",
    "frozen_camera",
    "jump",
    "wrong_fps",
    "idle",
)

_TIME_NAMES = {"timestamp", "timestamps", "time"}


@dataclass(frozen=True)
class Finding:
    """Something worth a look; everything but idle stretches may be damage.

    Attributes:
        kind: One of `KINDS`.
        sentence: What was found and where.
        key: The feature, if it is about one.
        episode: The episode, if it is about one.
        steps: First and last step within the episode, if it is about some.
    """

    kind: str
    sentence: str
    key: str | None = None
    episode: int | None = None
    steps: tuple[int, int] | None = None


def place(episode: int, first: int, last: int) -> str:
    """Begin a sentence with where in a store something is."""
    return f"Episode {episode}, " + (f"step {first}" if first == last else f"steps {first} to {last}")


def is_clock(key: str) -> bool:
    """Whether a key holds the time, in seconds."""
    return key.rpartition(".")[2] in _TIME_NAMES


def check_attributes(attributes: dict[str, Any], fps: float) -> list[Finding]:
    """Report a store with another fps than its environment's."""
    env = attributes.get("env")
    env_fps = env.get("fps") if isinstance(env, dict) else None
    if isinstance(env_fps, int | float) and env_fps != fps:
        return [Finding(WRONG_FPS, f"The store gives its fps as {fps:g}, but its environment ran at {env_fps:g}.")]
    return []


def check_clock(key: str, times_TD: np.ndarray, episode_ends: np.ndarray, fps: float) -> Iterator[Finding]:
    """Report episodes whose time stamps (seconds) disagree with fps, or advance unevenly."""
    for episode, times_T in enumerate(np.split(times_TD[:, 0].astype(np.float64), episode_ends[:-1])):
        if len(times_T) < 2 or not np.isfinite(times_T).all():
            continue
        fault = clock_fault(times_T, fps)
        if fault is not None:
            sentence = f"{place(episode, fault.first, fault.last)}: {key} {fault.sentence}."
            yield Finding(WRONG_FPS, sentence, key, episode, (fault.first, fault.last))
