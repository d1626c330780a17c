"""What was done in one episode, as numbers alone: of a store, or of a LeRobotDataset, whose videos stay closed.

Letters of shape suffixes: T steps.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.demos.store.layout import Feature, check_finite, names_in
from pixio_robot.demos.store.store import DemoStore

ACTION, STATE = "action", "observation.state"


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode's numbers, and what is known of where they come from.

    Attributes:
        source: The store or dataset, and the episode's number, for messages.
        actions_T: (T, actions) float32.
        states_T: (T, state) float32, each before its action; None where no state was recorded.
        names: What each number of a key is, by key, where it is known.
        fps: Control rate in Hz.
        seed: Of the simulation; None where it is not known.
        success: Whether it succeeded; None where it is not known.
        attributes: Of the recording as a whole: `env`, `versions` and more, as far as they are known.
        moves: Range and largest steps of the actions of all episodes; see `moves_of`.
    """

    source: str
    actions_T: np.ndarray
    states_T: np.ndarray | None
    names: dict[str, list[str]]
    fps: float
    seed: int | None
    success: bool | None
    attributes: dict[str, Any]
    moves: dict[str, list[float]]


def moves_of(actions_T: np.ndarray, ends: np.ndarray) -> dict[str, list[float]]:
    """Return within what a recording's actions stay, as an artifact's metadata have it.

    Args:
        actions_T: (T, actions) of all episodes, one behind the other.
        ends: One past the last step of each episode.

    Returns:
        `minimum` and `maximum`; `largest_change` from one step of an episode to the next; and `largest_value`, the largest
        absolute one; each a list of (actions,).
    """
    actions_T = actions_T.astype(np.float64)
    within = np.ones(max(0, len(actions_T) - 1), dtype=bool)
    within[ends[:-1] - 1] = False  # from the last step of an episode to the first of the next
    changes = np.abs(np.diff(actions_T, axis=0))[within]
    return {
        "minimum": actions_T.min(axis=0).tolist(),
        "maximum": actions_T.max(axis=0).tolist(),
        "largest_change": changes.max(axis=0, initial=0.0).tolist(),
        "largest_value": np.abs(actions_T).max(axis=0, initial=0.0).tolist(),
    }


def read_recorded(path: str | Path, number: int) -> RecordedEpisode:
    """Read an episode of a demonstration store (a folder, zip file or URL) or of the folder of a LeRobotDataset v3.

    Raises:
        UserError: There is none of both, it is damaged, or it has no such episode.
    """
    if (Path(path) / "meta" / "info.json").exists():
        from pixio_robot.demos.formats.lerobot import read_lerobot_numbers

        episodes, fps, attributes = read_lerobot_numbers(Path(path))
        check_episode_number(path, number, len(episodes))
        chosen = episodes[number]
        data, seed, success = chosen.data, chosen.seed, chosen.success
        features = {key: Feature(values.shape[1:], values.dtype.name) for key, values in data.items()}
        names = names_in(attributes, features)
        actions_T = np.concatenate([episode.data[ACTION] for episode in episodes])
        ends = np.cumsum([len(episode.data[ACTION]) for episode in episodes])
    else:
        store = DemoStore.open(path)
        check_episode_number(path, number, store.num_episodes)
        fps, names, attributes, ends = store.fps, store.names, store.attributes, store.episode_ends
        steps = store.episode_range(number)
        data = {key: store.read(key, steps.start, steps.stop) for key in (ACTION, STATE) if key in store.features}
        seed, success = int(store.episode_seeds[number]), int(store.episode_success[number])
        seed, success = None if seed < 0 else seed, None if success < 0 else bool(success)
        actions_T = store.read(ACTION, 0, store.num_steps)
    check_finite(str(path), names, number, data)
    return RecordedEpisode(
        source=f"episode {number} of {path}",
        actions_T=data[ACTION],
        states_T=data.get(STATE),
        names=names,
        fps=fps,
        seed=seed,
        success=success,
        attributes=attributes,
        moves=moves_of(actions_T, ends),
    )


def check_episode_number(path: object, number: int, n_episodes: int) -> None:
    """Check that there is an episode.

    Raises:
        UserError: There is not.
    """
    if n_episodes == 0:
        raise UserError(f"{path} has no finished episode: record some first.")
    last = n_episodes - 1
    if not 0 <= number <= last:
        nearest = min(max(number, 0), last)
        raise UserError(f"{path} has no episode {number!r}: it has 0 to {last}; the nearest is episode={nearest}.")
