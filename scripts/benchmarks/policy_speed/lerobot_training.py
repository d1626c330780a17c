"""LeRobot's side of the comparison: its own policy, dataset, loader, optimizer and training step.

What stands around `update_policy` here are the lines of `lerobot.scripts.lerobot_train.train` (LeRobot 0.6.1), with
batches loaded in the training process (`num_workers=0`).
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from lerobot.common.train_utils import get_step_checkpoint_dir, save_checkpoint
from lerobot.configs import PreTrainedConfig
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import EpisodeAwareSampler, LeRobotDataset
from lerobot.datasets.factory import make_train_eval_datasets
from lerobot.optim.factory import make_optimizer_and_scheduler
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.policies.factory import make_policy_config
from lerobot.scripts.lerobot_train import update_policy
from lerobot.utils.logging_utils import AverageMeter, MetricsTracker
from lerobot.utils.random_utils import set_seed
from lerobot.utils.utils import cycle

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.conversion import convert
from policy_speed.clock import StepClock


def lerobot_dataset(store: DemoStore, folder: Path, use_videos: bool) -> Path:
    """Return the LeRobotDataset of a store's episodes, converted if it is not there yet.

    Args:
        store: Demonstrations.
        folder: Holds such datasets, named by the store's content.
        use_videos: Frames as video, as LeRobot records them, or as images.

    Raises:
        UserError: See `pixio_robot.demos.formats.conversion.convert`.
    """
    root = folder / f"{store.fingerprint()}_{'video' if use_videos else 'image'}"
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        convert(store.path, root, use_videos=use_videos)
    return root


def lerobot_policy_config(policy: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the config of a policy of LeRobot's, without the ResNet weights that it would download.

    Args:
        policy: `type` and fields; every other field keeps LeRobot's default.

    Raises:
        UserError: LeRobot refuses the type or a field.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in policy.items()}  # as in YAML
    fields = {"push_to_hub": False, "pretrained_backbone_weights": None, "device": device, **tuples}
    try:
        return make_policy_config(fields.pop("type"), **fields)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f"LeRobot refuses the policy {dict(policy)}: {error}") from error


class LeRobotTraining:
    """A policy of LeRobot's, trained a step at a time as `lerobot-train` trains it."""

    def __init__(
        self, root: Path, policy: Mapping[str, Any], batch_size: int, seed: int, output_dir: Path, steps: int = 100_000
    ) -> None:
        """Build everything in LeRobot's order.

        Args:
            root: A LeRobotDataset v3.
            policy: See `lerobot_policy_config`.
            batch_size: Windows per step.
            seed: Of weights and of the order of batches.
            output_dir: A folder that is not there yet, for the checkpoint.
            steps: Length of the schedule, where the policy has one.

        Raises:
            UserError: LeRobot refuses the policy's type or fields.
        """
        policy_config = lerobot_policy_config(policy)
        device = policy_config.device
        self.config = TrainPipelineConfig(
            dataset=DatasetConfig(f"local/{root.name}", root=str(root)),
            policy=policy_config,
            output_dir=output_dir,
            batch_size=batch_size,
            steps=steps,
            seed=seed,
            num_workers=0,
        )
        self.config.validate()
        AcceleratorState._reset_state()  # ours may have left another precision, which would be taken over
        self._accelerator = Accelerator(step_scheduler_with_optimizer=False, cpu=device == "cpu")
        set_seed(seed)
        dataset, _ = make_train_eval_datasets(self.config)
        assert isinstance(dataset, LeRobotDataset) and dataset.meta.episodes is not None
        model = make_policy(cfg=policy_config, ds_meta=dataset.meta)
        statistics: Any = dataset.meta.stats  # annotated as arrays, wanted as tensors; LeRobot takes either
        self._preprocessor, self._postprocessor = make_pre_post_processors(
            policy_cfg=policy_config, dataset_stats=statistics
        )
        optimizer, scheduler = make_optimizer_and_scheduler(self.config, model)
        sampler = EpisodeAwareSampler(
            dataset.meta.episodes["dataset_from_index"],
            dataset.meta.episodes["dataset_to_index"],
            episode_indices_to_use=dataset.episodes,
            drop_n_last_frames=getattr(policy_config, "drop_n_last_frames", 0),
            shuffle=True,
            seed=seed,
            absolute_to_relative_idx=dataset.absolute_to_relative_idx,
        )
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=batch_size, sampler=sampler, num_workers=0, pin_memory=device == "cuda", drop_last=False
        )
        self.policy, self._optimizer, loader, self._scheduler = self._accelerator.prepare(
            model, optimizer, loader, scheduler
        )
        self._batches = cycle(loader)
        self._cameras = list(dataset.meta.camera_keys)
        names = ["loss", "grad_norm", "lr", "update_s"] + ["gpu_mem_gb"] * torch.cuda.is_available()
        self._meters = {name: AverageMeter(name) for name in names}
        accelerator: Any = self._accelerator  # annotated as some callable
        self._tracker = MetricsTracker(
            batch_size, dataset.num_frames, dataset.num_episodes, self._meters, accelerator=accelerator
        )
        self.policy.train()

    @property
    def loss(self) -> float:
        """Loss of the last step."""
        return self._meters["loss"].val

    @property
    def steps_done(self) -> int:
        """Steps so far."""
        return self._tracker.steps

    def run(self, steps: int, clock: StepClock) -> None:
        """Train for some steps."""
        with clock.watching(self.policy):
            for _ in range(steps):
                self._step(clock)

    def run_for(self, seconds: float) -> None:
        """Train until so many seconds are over; the last step is finished."""
        end = time.perf_counter() + seconds
        clock = StepClock()
        while time.perf_counter() < end:
            self._step(clock)

    def save(self) -> Path:
        """Write a checkpoint as LeRobot does and return its `pretrained_model` folder."""
        assert self.config.output_dir is not None
        folder = get_step_checkpoint_dir(self.config.output_dir, self.config.steps, self.steps_done)
        save_checkpoint(
            checkpoint_dir=folder,
            step=self.steps_done,
            cfg=self.config,
            policy=self._accelerator.unwrap_model(self.policy),
            optimizer=self._optimizer,
            scheduler=self._scheduler,
            preprocessor=self._preprocessor,
            postprocessor=self._postprocessor,
        )
        return folder / "pretrained_model"

    def _step(self, clock: StepClock) -> None:
        clock.begin_step()
        batch = next(self._batches)
        clock.mark("loading")
        for key in self._cameras:
            if key in batch and batch[key].dtype == torch.uint8:
                batch[key] = batch[key].to(dtype=torch.float32) / 255.0
        batch = self._preprocessor(batch)
        assert self.config.optimizer is not None
        self._tracker, _ = update_policy(
            self._tracker,
            self.policy,
            batch,
            self._optimizer,
            self.config.optimizer.grad_clip_norm,
            accelerator=self._accelerator,
            lr_scheduler=self._scheduler,
        )
        self._tracker.step()
        clock.mark("rest")
