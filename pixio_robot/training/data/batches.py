"""Training batches in an order that follows from the seed alone, so that a resumed run repeats it.

Shape letters: B batch, O observation steps, S state size, A action size, H action horizon.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Sampling, WindowDataset, WindowSampler, window_weights
from pixio_robot.demos.windows.sampling import episode_weights, imitated_ranges
from pixio_robot.images.preprocessing import frames_to_images
from pixio_robot.training.data.feature_cache import FeatureCache

_MOST_LEFT_OUT = 20  # episodes that a message offers to leave out by number


@dataclass(frozen=True)
class Windows:
    """What a policy sees and predicts at a step.

    Attributes:
        action_horizon: Length H of the action chunk.
        n_obs_steps: Number O of observation steps.
        first_action: Step of the first action, relative to the last observation.
        drop_n_last_frames: Steps at the end of each episode at which no window starts.
    """

    action_horizon: int
    n_obs_steps: int = 1
    first_action: int = 0
    drop_n_last_frames: int = 0

    @classmethod
    def of(cls, config: Any) -> Self:  # noqa: ANN401 (each policy's config class has fields of its own)
        """Return those of a policy's config."""
        actions = config.action_delta_indices
        return cls(len(actions), config.n_obs_steps, actions[0], getattr(config, "drop_n_last_frames", 0))


class TrainingBatches:
    """Batches of windows, with cached encoder tokens in place of images where a cache is given."""

    def __init__(
        self,
        store: DemoStore,
        image_keys: Sequence[str],
        windows: Windows,
        batch_size: int,
        seed: int,
        cache: FeatureCache | None,
        num_episodes: int | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        """Prepare the windows of a store.

        Args:
            store: Demonstrations.
            image_keys: Cameras that the policy sees.
            windows: What each has.
            batch_size: Windows per batch.
            seed: Decides the order.
            cache: Tokens of a frozen encoder, or None to load images.
            num_episodes: Use the first so many episodes; None uses all.
            sampling: How often windows are drawn: each once an epoch by default.

        Raises:
            UserError: An episode is shorter than the horizon, no window is left, or `sampling` does not fit.
        """
        self._windows = WindowDataset(
            store,
            windows.action_horizon,
            windows.n_obs_steps,
            image_keys=() if cache is not None else tuple(image_keys),
            first_action=windows.first_action,
        )
        self._image_keys = tuple(image_keys)
        self._ends, self._tasks = store.episode_ends, store.episode_tasks
        sampling = sampling or Sampling()
        starts = window_starts(store, num_episodes, windows, sampling)
        self._sampler = WindowSampler(starts, seed, window_weights(store, starts, sampling))
        self._batch_size = min(batch_size, len(starts))
        self._seed = seed
        self._cache = cache
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def names(self, batch: Mapping[str, Tensor]) -> list[str]:
        """Say which windows a batch has, for people."""
        steps = batch["index"].numpy()
        episodes = np.searchsorted(self._ends, steps, side="right")
        first = np.concatenate([[0], self._ends])[episodes]
        return [f"episode {episode} step {step}" for episode, step in zip(episodes, steps - first)]

    def batch(self, step: int) -> dict[str, Any]:
        """Return the batch of a training step: state (B, S), action (B, H, A), its padding mask, task, and cameras.

        `task` is a list of B sentences, as LeRobot has it. Cameras are images (B, 3, height, width) in [0, 1], or
        `observation.tokens.<camera>`. Of several observation steps, states and cameras have an axis O after B.
        """
        per_epoch = len(self._sampler) // self._batch_size
        epoch, position = divmod(step, per_epoch)
        if epoch != self._epoch:
            self._order = self._sampler.order(epoch)
            self._epoch = epoch
        steps = self._order[position * self._batch_size : (position + 1) * self._batch_size]
        return self.at(steps, self._copies(step, len(steps)))

    def at(self, steps: np.ndarray, copies: np.ndarray | None = None) -> dict[str, Any]:
        """Return the windows of steps of the store, whether they are trained on or not.

        Args:
            steps: Numbers of steps in the store.
            copies: Which cached copy of its frames each window sees; None is the frames themselves.
        """
        batch: dict[str, Any] = self._windows.batch(steps)
        batch["task"] = [self._tasks[episode] for episode in np.searchsorted(self._ends, steps, side="right")]
        for key in self._image_keys:
            if self._cache is None:
                frames = batch[key]
                images = frames_to_images(frames.flatten(0, -4))
                batch[key] = images.unflatten(0, frames.shape[:-3])
            else:
                tokens_key = key.replace("observation.images.", "observation.tokens.")
                observed_BO = self._windows.observed_steps(steps)
                of_frames = None if copies is None else copies.repeat(observed_BO.shape[1])
                tokens = self._cache.read(key, observed_BO.ravel(), of_frames)
                batch[tokens_key] = tokens if self._windows.n_obs_steps == 1 else tokens.unflatten(0, observed_BO.shape)
        return batch

    def _copies(self, step: int, windows: int) -> np.ndarray | None:
        """Draw which copy each window sees, the same for its cameras and observation steps (B,)."""
        if self._cache is None or self._cache.num_copies == 1:
            return None
        generator = np.random.default_rng([self._seed, step, 1])  # another stream than the order's
        return generator.integers(self._cache.num_copies, size=windows)


def window_starts(store: DemoStore, num_episodes: int | None, windows: Windows, sampling: Sampling) -> np.ndarray:
    """Return the steps of a store at which windows start.

    Args:
        store: Demonstrations.
        num_episodes: Use the first so many episodes; None uses all.
        windows: What each has.
        sampling: How often windows are drawn.

    Raises:
        UserError: An episode that is drawn is shorter than the horizon and may not be padded, or no window is left.
    """
    action_horizon, drop_n_last_frames = windows.action_horizon, windows.drop_n_last_frames
    ends = store.episode_ends[:num_episodes]
    lengths = np.diff(ends, prepend=0)
    is_drawn = episode_weights(store, sampling)[: len(ends)] > 0
    too_short = np.flatnonzero(is_drawn & (lengths < action_horizon))
    if len(too_short) and not sampling.pad_short_episodes:
        raise UserError(_too_short(too_short, lengths, action_horizon))
    starts = [np.arange(start, end - drop_n_last_frames) for start, end in imitated_ranges(store, num_episodes)]
    steps = np.concatenate(starts or [np.zeros(0, np.int64)])
    if not len(steps):
        longest = np.diff(imitated_ranges(store, num_episodes)).max(initial=0)
        raise UserError(
            f"policy.drop_n_last_frames={drop_n_last_frames} leaves nothing of demonstrations in which at most "
            f"{longest} steps in a row are to be imitated: set it lower."
        )
    return steps


def _too_short(episodes: np.ndarray, lengths: np.ndarray, action_horizon: int) -> str:
    """Say which episodes are shorter than a horizon, and what can be done."""
    found = (
        f"{len(episodes)} of {len(lengths)} demonstrations are shorter than the policy's action horizon of "
        f"{action_horizon} steps (episode {episodes[0]} has {lengths[episodes[0]]})"
    )
    weights = ", ".join(f"{episode}: 0" for episode in episodes)
    can_go = len(episodes) < len(lengths) and len(episodes) <= _MOST_LEFT_OUT
    leaving_out = f"leave them out with '+demos.episode_weights={{{weights}}}', " if can_go else ""
    return (
        f"{found}: {leaving_out}set policy.chunk_size or policy.horizon to {lengths[episodes].min()} or less, or repeat "
        "their last action beyond their end, which the loss leaves out, with demos.pad_short_episodes=true."
    )
