"""A tiny real training, importable from spawned processes: a store with two cameras, pixio_act, a few steps."""

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from pixio_robot.demos import DemoStore, Feature
from pixio_robot.encoders import EncoderConfig
from pixio_robot.engine.run_log import RunLog
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.training.config import TrainerConfig
from pixio_robot.training.data.batches import TrainingBatches, Windows
from pixio_robot.training.data.feature_cache import cache_features
from pixio_robot.training.job import seed_everything
from pixio_robot.training.policy.building import build_policy, policy_config_from
from pixio_robot.training.trainer import PolicyTraining, join_training_processes, train

CAMERAS = ("observation.images.front", "observation.images.wrist")
CONFIG = TrainerConfig(steps=12, batch_size=4, warmup_steps=2, checkpoint_every=5, log_every=1)
DIFFUSION = {
    "type": "pixio_diffusion",
    "n_obs_steps": 2,
    "horizon": 4,
    "n_action_steps": 2,
    "down_dims": [8, 16],
    "n_groups": 2,  # groups of one or two numbers would turn rounding into a sign
    "diffusion_step_embed_dim": 8,
    "drop_n_last_frames": 1,
}
POLICY = {"type": "pixio_act", "chunk_size": 4, "n_action_steps": 2, "dim_model": 32, "dim_feedforward": 64}
ENCODER = EncoderConfig("pixio_tiny16", weights="random")


SIZES = dict.fromkeys(CAMERAS, (32, 48))


def make_store(
    path: Path,
    episodes: int = 3,
    seed: int = 0,
    sizes: dict[str, tuple[int, int]] = SIZES,
    state_size: int = 5,
    action_size: int = 3,
    tasks: Sequence[str] = ("toy",),
) -> DemoStore:
    """Write random episodes of 5, 6, 7 … steps, with cameras of some heights and widths, of some tasks in turn."""
    features = {
        **{key: Feature((*size, 3), "uint8") for key, size in sizes.items()},
        "observation.state": Feature((state_size,), "float32"),
        "action": Feature((action_size,), "float32"),
    }
    store = DemoStore.create(path, features, {"fps": 20, "env": {"type": "pixio_toy"}})
    generator = np.random.default_rng(seed)
    for number in range(episodes):
        length = 5 + number
        store.append_episode(
            {
                **{key: generator.integers(0, 256, (length, *size, 3), dtype=np.uint8) for key, size in sizes.items()},
                "observation.state": generator.normal(size=(length, state_size)).astype(np.float32),
                "action": generator.normal(size=(length, action_size)).astype(np.float32),
            },
            seed=number,
            success=True,
            task=tasks[number % len(tasks)],
        )
    store.close()
    return DemoStore.open(path)


def run_training(
    store_path: Path,
    run_dir: Path,
    *,
    cached: bool = True,
    kill_at: int | None = None,
    interrupt_at: int | None = None,
    encoder: EncoderConfig = ENCODER,
    config: TrainerConfig = CONFIG,
    evaluate: Callable[[Path], EvaluationRecord] | None = None,
    policy: Mapping[str, Any] | None = None,
    **policy_fields: float,
) -> Path:
    """Train on a store, and kill or interrupt the process at a step if told so; fields change the policy."""
    torch.set_num_threads(1)
    store = DemoStore.open(store_path)
    seed_everything(0)
    policy_config = policy_config_from({**(policy or POLICY), **policy_fields}, encoder, store)
    built, processors = build_policy(policy_config, store)
    processes = join_training_processes(config.precision)
    cache = None
    if cached:
        folder = run_dir.parent / "features"
        with processes.one_after_another():
            cache = cache_features(store, built.encoder, CAMERAS, folder, augmented_copies=config.augmented_copies or 0)

    def maybe_die(step: int, loss: float) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == interrupt_at:
            raise KeyboardInterrupt

    batches = TrainingBatches(store, CAMERAS, Windows.of(policy_config), config.batch_size, seed=0, cache=cache)
    setup = PolicyTraining(built, processors, batches, {"env": {}}, evaluate)
    with RunLog(run_dir, Console(quiet=True), writes=processes.main, wandb_project=config.wandb) as log:
        return train(setup, config, run_dir, log, processes=processes, on_log=maybe_die)


def logged(run_dir: Path, name: str) -> dict[int, float]:
    """Return a logged number of training by step; each step must be there once."""
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    steps = [(line["step"], line[name]) for line in lines if line["phase"] == "training" and name in line]
    assert len(dict(steps)) == len(steps)
    return dict(steps)


def losses(run_dir: Path) -> dict[int, float]:
    """Return the logged loss of every step."""
    return logged(run_dir, "loss")
