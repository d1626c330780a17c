"""Training windows over a demonstration store."""

# B items, O observation steps, A action steps.

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.demos.windows.sampling import imitated_ranges

_ACTION = "action"


class WindowDataset(torch.utils.data.Dataset):
    """Windows around every step of a store: the last observations, and the actions from that step on.

    An item has each low-dimensional ``observation.*`` key, float32, and each camera, uint8 (H, W, 3), with a
    leading axis of observation steps, oldest first, where there are several; ``action`` (action_horizon,
    actions) from the item's own step on; ``action_is_pad`` (action_horizon,) bool, true outside the episode and outside
    the stretch of it that is to be imitated (`imitated_ranges`); and ``index``, the step's number in the store,
    int64. Beyond the ends its first or last step is repeated.

    States and actions stay in memory; frames are read when asked for, as many as there are observation steps.
    A copy in another process (pickled as the store's path) reads its own.

    Args:
        store: The demonstrations.
        action_horizon: Number of actions of an item.
        n_obs_steps: Number of observation steps of an item.
        image_keys: Cameras to read: all by default.
        first_action: Step of the first action, relative to the item's own: zero or less.

    Raises:
        UserError: The store is empty or lacks a camera.
    """

    def __init__(
        self,
        store: DemoStore,
        action_horizon: int,
        n_obs_steps: int = 1,
        image_keys: Sequence[str] | None = None,
        first_action: int = 0,
    ) -> None:
        if store.num_episodes == 0:
            raise UserError(f"{store.path} has no finished episode: record some first.")
        self.store = store
        self.action_horizon = action_horizon
        self.n_obs_steps = n_obs_steps
        self.first_action = first_action
        self.image_keys = list(store.image_keys if image_keys is None else image_keys)
        for key in self.image_keys:
            if key not in store.image_keys:
                raise UserError(f"{store.path} has no camera {key!r}. {nearest_name(key, store.image_keys)}")
        self._ends = store.episode_ends
        self._starts = np.concatenate([[0], self._ends[:-1]])
        self._imitated = imitated_ranges(store)
        self._low_dim = {
            key: store.read(key, 0, store.num_steps)
            for key, feature in store.features.items()
            if key == _ACTION or (key.startswith("observation.") and not feature.is_image)
        }

    def __len__(self) -> int:
        """Return the number of steps in the store."""
        return int(self._ends[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the data."""
        return type(self), (self.store, self.action_horizon, self.n_obs_steps, self.image_keys, self.first_action)

    def __getitem__(self, index: int | Sequence[int]) -> dict[str, torch.Tensor]:
        """Return one item, or a batch of several, which a data loader then need not collate.

        The fastest loader is ``DataLoader(dataset, batch_size=None, sampler=BatchSampler(…))``: its workers decode frames
        straight into the memory that they share with the training process.
        """
        if isinstance(index, Sequence):
            return self.batch(np.asarray(index, np.int64))
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Return several items, reading their frames at once; torch's data loader calls this to collate them."""
        batch = self._batch(np.asarray(indices, np.int64), is_shared=False)
        return [{key: values[i] for key, values in batch.items()} for i in range(len(indices))]

    def batch(self, steps_B: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the items of steps with an axis B in front, without the copy that collating them costs."""
        return self._batch(steps_B, is_shared=torch.utils.data.get_worker_info() is not None)

    def _batch(self, steps_B: np.ndarray, is_shared: bool) -> dict[str, torch.Tensor]:
        if len(steps_B) and not (steps_B.min() >= 0 and steps_B.max() < len(self)):
            raise IndexError(f"steps {steps_B.min()} to {steps_B.max()} of a dataset with {len(self)}")
        observed_BO = self.observed_steps(steps_B)
        starts_B, ends_B = self._imitated_bounds(steps_B)
        acted_BA = steps_B[:, None] + self.first_action + np.arange(self.action_horizon)
        padded_BA = (acted_BA < starts_B[:, None]) | (acted_BA >= ends_B[:, None])
        acted_BA = acted_BA.clip(starts_B[:, None], np.maximum(ends_B - 1, starts_B)[:, None])

        arrays = {
            key: values[acted_BA if key == _ACTION else self._observed(observed_BO)]
            for key, values in self._low_dim.items()
        }
        batch = {key: torch.from_numpy(values) for key, values in arrays.items()}
        for key in self.image_keys:
            shape = (observed_BO.size, *self.store.features[key].shape)
            frames = _shared_bytes(shape) if is_shared else torch.empty(shape, dtype=torch.uint8)
            self.store.read_steps(key, observed_BO.ravel(), out=frames.numpy())
            batch[key] = frames.view(*self._observed(observed_BO).shape, *shape[1:])
        batch["action_is_pad"] = torch.from_numpy(padded_BA)
        batch["index"] = torch.from_numpy(steps_B)
        return batch

    def observed_steps(self, steps_B: np.ndarray) -> np.ndarray:
        """Return the store's steps that items observe, (B, O), oldest first."""
        observed_BO = steps_B[:, None] + np.arange(1 - self.n_obs_steps, 1)
        return np.maximum(observed_BO, self._episode_bounds(steps_B)[0][:, None])

    def _episode_bounds(self, steps_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        episodes_B = np.searchsorted(self._ends, steps_B, side="right")
        return self._starts[episodes_B], self._ends[episodes_B]

    def _imitated_bounds(self, steps_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the stretch to be imitated around each step; that of a step outside all is empty and starts there."""
        places_B = np.searchsorted(self._imitated[:, 1], steps_B, side="right")
        starts_B, ends_B = np.append(self._imitated, [[len(self), len(self)]], axis=0)[places_B].T
        is_inside_B = starts_B <= steps_B
        return np.where(is_inside_B, starts_B, steps_B), np.where(is_inside_B, ends_B, steps_B)

    def _observed(self, observed_BO: np.ndarray) -> np.ndarray:
        return observed_BO[:, 0] if self.n_obs_steps == 1 else observed_BO


def _shared_bytes(shape: tuple[int, ...]) -> torch.Tensor:
    """Return an empty uint8 tensor in memory that worker and training process share, as torch's own collating does."""
    empty = torch.empty(0, dtype=torch.uint8)
    storage = empty._typed_storage()._new_shared(math.prod(shape), device="cpu")
    return empty.new(storage).resize_(shape)
