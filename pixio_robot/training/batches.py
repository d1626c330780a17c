"""Training batches in an order that follows from the seed alone, so that a resumed run repeats it.

Shape letters: B batch, S state size, A action size, H action horizon.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate

from pixio_robot.demos import DemoStore, WindowDataset
from pixio_robot.encoders import frames_to_images
from pixio_robot.training.feature_cache import FeatureCache


class TrainingBatches:
    """Batches of windows, with cached encoder tokens in place of images where a cache is given."""

    def __init__(
        self,
        store: DemoStore,
        image_keys: Sequence[str],
        action_horizon: int,
        batch_size: int,
        seed: int,
        cache: FeatureCache | None,
        num_episodes: int | None = None,
    ) -> None:
        """Prepare the windows of a store.

        Args:
            store: Demonstrations.
            image_keys: Cameras that the policy sees.
            action_horizon: Length H of the action chunk.
            batch_size: Windows per batch.
            seed: Decides the order.
            cache: Tokens of a frozen encoder, or None to load images.
            num_episodes: Use the first so many episodes; None uses all.
        """
        self._windows = WindowDataset(store, action_horizon, image_keys=() if cache is not None else tuple(image_keys))
        self._image_keys = tuple(image_keys)
        ends = store.episode_ends
        self._num_windows = int(ends[-1 if num_episodes is None else min(num_episodes, len(ends)) - 1])
        self._batch_size = min(batch_size, self._num_windows)
        self._seed = seed
        self._cache = cache
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def batch(self, step: int) -> dict[str, Tensor]:
        """Return the batch of a training step: state (B, S), action (B, H, A), its padding mask, and cameras.

        Cameras are images (B, 3, height, width) in [0, 1], or `observation.tokens.<camera>`.
        """
        per_epoch = self._num_windows // self._batch_size
        epoch, position = divmod(step, per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._num_windows)
            self._epoch = epoch
        steps = self._order[position * self._batch_size : (position + 1) * self._batch_size]
        batch: dict[str, Tensor] = default_collate(self._windows.__getitems__(steps.tolist()))
        for key in self._image_keys:
            if self._cache is None:
                batch[key] = frames_to_images(batch[key])
            else:
                tokens_key = key.replace("observation.images.", "observation.tokens.")
                batch[tokens_key] = self._cache.read(key, steps)
        return batch
