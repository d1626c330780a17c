"""Our side of the comparison: `pixio_robot.training.train` on cached tokens, as the main job calls it."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pixio_robot.demos import DemoStore
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.engine.run_log import RunLog
from pixio_robot.training.config import TrainerConfig
from pixio_robot.training.data.batches import TrainingBatches, Windows
from pixio_robot.training.data.feature_cache import FeatureCache, cache_features
from pixio_robot.training.job import seed_everything
from pixio_robot.training.policy.building import build_policy, policy_config_from
from pixio_robot.training.trainer import PolicyTraining, train
from policy_speed.clock import StepClock


def encode_demonstrations(
    store: DemoStore,
    encoder: EncoderConfig,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[FeatureCache, float]:
    """Encode every frame of every camera and return the cache and the seconds that it took.

    Args:
        store: Demonstrations.
        encoder: A frozen encoder.
        folder: An empty one for the cache, so that all frames are encoded now.
        on_progress: Called with the frames done and in all.
    """
    module = VisionEncoder(encoder).to("cuda" if torch.cuda.is_available() else "cpu")
    start = time.perf_counter()
    cache = cache_features(store, module, store.image_keys, folder, on_progress=on_progress)
    return cache, time.perf_counter() - start


class OurTraining:
    """A policy of ours with its batches, trained a stretch at a time."""

    def __init__(
        self,
        store: DemoStore,
        encoder: EncoderConfig,
        policy: Mapping[str, Any],
        trainer: TrainerConfig,
        seed: int,
        cache: FeatureCache,
    ) -> None:
        """Build policy, processors and batches.

        Args:
            store: Demonstrations.
            encoder: The frozen encoder that `cache` was made by.
            policy: `type` and fields of the policy's config.
            trainer: How the main job would train it.
            seed: Of weights and of the order of batches.
            cache: Tokens of all cameras.

        Raises:
            UserError: Unknown policy type or field, or a horizon that does not fit.
        """
        seed_everything(seed)
        self.config: Any = policy_config_from(policy, encoder, store)
        self.policy, self._processors = build_policy(self.config, store)
        self.trainer = trainer
        self.loss = math.nan
        self._seed = seed
        self._batches = _TimedBatches(
            store,
            list(self.config.image_features),
            Windows.of(self.config),
            trainer.batch_size,
            seed,
            cache,
        )

    def run(
        self,
        steps: int,
        run_dir: Path,
        clock: StepClock | None = None,
        information: Mapping[str, Any] | None = None,
        on_step: Callable[[int, float], None] = lambda step, loss: None,
    ) -> Path:
        """Train for some steps from the present weights, with a new optimizer, and save once at the end.

        Args:
            steps: Optimizer steps, the length of the schedule too.
            run_dir: A folder without a checkpoint.
            clock: Measures the stages of every step.
            information: What is saved with the checkpoint.
            on_step: See `train`.

        Returns:
            The checkpoint's `pretrained_model` folder.
        """

        def note(step: int, loss: float) -> None:
            self.loss = loss
            on_step(step, loss)

        warmup = min(self.trainer.warmup_steps, max(steps // 10, 1))
        config = dataclasses.replace(self.trainer, steps=steps, warmup_steps=warmup, checkpoint_every=steps)
        log = RunLog(run_dir, Console(quiet=True))
        self._batches.clock = clock
        with clock.watching(self.policy) if clock is not None else nullcontext():
            setup = PolicyTraining(self.policy, self._processors, self._batches, information or {})
            return train(setup, config, run_dir, log, seed=self._seed, on_log=note)


class _TimedBatches(TrainingBatches):
    """Batches that tell a clock when they are asked for and when they are there."""

    clock: StepClock | None = None

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        if self.clock is None:
            return super().batch(step)
        self.clock.begin_step()
        batch = super().batch(step)
        self.clock.mark("loading")
        return batch
