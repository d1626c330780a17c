"""Which windows a training run draws, and how often: evenly over steps, episodes or tasks, or by weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.demos.store.layout import INTERVENTION
from pixio_robot.demos.store.store import DemoStore

STEP, EPISODE, TASK = "step", "episode", "task"


@dataclass(frozen=True)
class Sampling:
    """How often windows are drawn.

    A window's share is that of its step, of its episode or of its task, times the weights given for its task and for its
    episode.
    """

    by: str = STEP
    """What has equal shares: every `step` (long episodes weigh more), every `episode`, or every `task`."""
    task_weights: Mapping[str, float] = field(default_factory=dict)
    """By the tasks' words; others have 1, and 0 leaves a task out."""
    episode_weights: Mapping[int, float] = field(default_factory=dict)
    """By the episodes' numbers; others have 1."""
    pad_short_episodes: bool = False
    """Whether windows may be longer than their whole episode, whose last action is then repeated and masked."""


def imitated_ranges(store: DemoStore, num_episodes: int | None = None) -> np.ndarray:
    """Return the stretches of steps whose actions are to be imitated, int64 (S, 2): the first step and one past the last.

    They are the episodes, or, where a store has the key `INTERVENTION`, the parts of them in which it is not 0.

    Args:
        store: The demonstrations.
        num_episodes: Look at the first so many episodes; None looks at all.
    """
    ends = store.episode_ends[:num_episodes]
    ranges = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1) if len(ends) else np.zeros((0, 2), np.int64)
    if INTERVENTION not in store.features or not len(ends):
        return ranges
    acted = store.read(INTERVENTION, 0, int(ends[-1])).reshape(int(ends[-1]), -1).max(axis=1) > 0
    cut = np.zeros(len(acted) + 1, bool)
    cut[ranges] = True
    cut[1:-1] |= acted[1:] != acted[:-1]
    borders = np.flatnonzero(cut)
    stretches = np.stack([borders[:-1], borders[1:]], axis=1)
    return stretches[acted[stretches[:, 0]]]


def window_weights(store: DemoStore, starts: np.ndarray, sampling: Sampling) -> np.ndarray | None:
    """Return the share of each window, float64 (windows,), summing to 1; None where all are alike.

    Args:
        store: The demonstrations.
        starts: Steps of the store at which the windows start.
        sampling: How often they are drawn.

    Raises:
        UserError: `sampling` names something that is not there, or a weight that is negative, or leaves nothing.
    """
    check_sampling(store, sampling)
    if sampling.by == STEP and not sampling.task_weights and not sampling.episode_weights:
        return None
    episodes = np.searchsorted(store.episode_ends, starts, side="right")
    task_of_episode = np.unique(np.array(store.episode_tasks), return_inverse=True)[1]
    groups = {STEP: np.zeros_like(episodes), EPISODE: episodes, TASK: task_of_episode[episodes]}[sampling.by]
    weights = episode_weights(store, sampling)[episodes] / np.bincount(groups)[groups]
    if not weights.any():
        raise UserError(
            "demos.task_weights and demos.episode_weights leave no window: give one that has windows more than 0."
        )
    return weights / weights.sum()


def episode_weights(store: DemoStore, sampling: Sampling) -> np.ndarray:
    """Return the product of the weights given for each episode and for its task, float64 (E,)."""
    of_task = np.array([sampling.task_weights.get(task, 1.0) for task in store.episode_tasks])
    return of_task * [sampling.episode_weights.get(index, 1.0) for index in range(store.num_episodes)]


def check_sampling(store: DemoStore, sampling: Sampling) -> None:
    """Look whether a store has what is given weights.

    Raises:
        UserError: `sampling` names something that is not there, or a weight that is negative.
    """
    if sampling.by not in (STEP, EPISODE, TASK):
        raise UserError(f"Unknown demos.sample_by {sampling.by!r}. {nearest_name(sampling.by, (STEP, EPISODE, TASK))}")
    known = set(store.episode_tasks)
    for task in sampling.task_weights:
        if task not in known:
            raise UserError(f"{store.path} has no task {task!r} (demos.task_weights). {nearest_name(task, known)}")
    for index in sampling.episode_weights:
        if not (isinstance(index, int) and 0 <= index < store.num_episodes):
            raise UserError(
                f"{store.path} has no episode {index!r} (demos.episode_weights): it has 0 to {store.num_episodes - 1}."
            )
    for weight in [*sampling.task_weights.values(), *sampling.episode_weights.values()]:
        if not (np.isfinite(weight) and weight >= 0):
            raise UserError(f"A weight of a task or an episode is {weight}: give a number of 0 or more.")


class WindowSampler(torch.utils.data.Sampler[int]):
    """The order of windows in each epoch, which follows from the seed and the number of the epoch alone.

    An epoch has as many windows as there are. Where all are alike, each comes once. By weights, each comes as often as
    its share says, rounded up or down at random such that it is right on average (systematic resampling, Carpenter,
    Clifford & Fearnhead 1999).

    Args:
        starts: Steps of the store at which windows start, which are also the items of a `WindowDataset`.
        seed: Decides the order.
        weights: See `window_weights`.
    """

    def __init__(self, starts: np.ndarray, seed: int, weights: np.ndarray | None = None) -> None:
        self.epoch = 0
        self._starts = starts
        self._seed = seed
        self._upper = None if weights is None else np.cumsum(weights) / np.sum(weights)

    def __len__(self) -> int:
        """Return the number of windows in an epoch."""
        return len(self._starts)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the epoch that `set_epoch` set."""
        return iter(self.order(self.epoch).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; call it before each, as for torch's `DistributedSampler`."""
        self.epoch = epoch

    def order(self, epoch: int) -> np.ndarray:
        """Return the steps of an epoch, int64 (windows,)."""
        drawn = self._starts
        if self._upper is not None:
            offset = np.random.default_rng([self._seed, epoch, 2]).random()
            ticks = (np.arange(len(self._starts)) + offset) / len(self._starts)
            drawn = self._starts[np.searchsorted(self._upper, ticks, side="right").clip(max=len(self._starts) - 1)]
        return np.random.default_rng([self._seed, epoch]).permutation(drawn)
