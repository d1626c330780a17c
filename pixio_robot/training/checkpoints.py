"""Checkpoints in LeRobot's folder layout, complete or absent, with all that an exact resume needs.

`checkpoints/<step>/pretrained_model` is what `lerobot-eval --policy.path=` reads: the averaged weights, the
config and the processors. `checkpoints/<step>/training_state` holds the raw weights, optimiser and RNG.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from lerobot.common.train_utils import get_step_checkpoint_dir, load_training_state, save_training_state
from lerobot.policies import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pixio_robot.encoders.references import REFERENCE_KEY
from pixio_robot.errors import UserError
from pixio_robot.training.average import WeightAverage

_RAW_WEIGHTS = "raw_weights.safetensors"


def save_checkpoint(
    run_dir: Path,
    step: int,
    total_steps: int,
    policy: PreTrainedPolicy,
    average: WeightAverage,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    processors: tuple[PolicyProcessorPipeline, PolicyProcessorPipeline],
    information: Mapping[str, Any],
) -> Path:
    """Write a checkpoint and point `checkpoints/last` at it; earlier checkpoints are removed.

    Args:
        run_dir: The run folder.
        step: Finished training steps.
        total_steps: Steps of the whole training (decides the folder name's width).
        policy: The policy with its raw weights.
        average: The averaged weights, which become the checkpoint's weights.
        optimizer: Saved for resuming.
        scheduler: Saved for resuming.
        processors: Pre- and post-processing pipelines.
        information: What the policy was trained in (`pixio_run.json`): environment, versions, seeds.

    Returns:
        The checkpoint's `pretrained_model` folder.
    """
    final = get_step_checkpoint_dir(run_dir, total_steps, step)
    temporary = final.with_name(f".{final.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    model_dir = temporary / "pretrained_model"
    with average.applied():
        policy.save_pretrained(model_dir)
    for processor in processors:
        processor.save_pretrained(model_dir)
    (model_dir / "pixio_run.json").write_text(json.dumps(information, indent=2))
    save_training_state(temporary, step, optimizer, scheduler)
    safetensors.torch.save_file(_trainable(policy), temporary / "training_state" / _RAW_WEIGHTS)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    _point_last_at(final)
    for older in final.parent.glob("[0-9]*"):
        if older.name != final.name:
            shutil.rmtree(older)
    return final / "pretrained_model"


def load_checkpoint(
    run_dir: Path,
    policy: PreTrainedPolicy,
    average: WeightAverage,
    optimizer: Optimizer,
    scheduler: LRScheduler,
) -> int:
    """Restore the last checkpoint of a run and return its step; 0 if there is none yet.

    Raises:
        UserError: The checkpoint was made by another policy, or on other weights of the encoder.
    """
    last = run_dir / "checkpoints" / "last"
    if not last.exists():
        return 0
    state_dir = last / "training_state"
    averaged = safetensors.torch.load_file(last / "pretrained_model" / "model.safetensors")
    raw = safetensors.torch.load_file(state_dir / _RAW_WEIGHTS)
    own = _trainable(policy)
    if own.keys() != raw.keys() or any(own[key].shape != raw[key].shape for key in own):
        raise UserError(
            f"{last.resolve()} was made by another policy or encoder than the config describes; "
            f"resume with the run's own config."
        )
    # Running statistics are of the raw weights anyway; a reference to frozen weights is checked when it is loaded.
    others = {name for name, _ in policy.named_buffers()}
    state = {key: value for key, value in averaged.items() if key in others or key.endswith(REFERENCE_KEY)}
    policy.load_state_dict({**state, **raw}, strict=False)
    average.load({key: averaged[key] for key in raw})
    step, _, _ = load_training_state(last.resolve(), optimizer, scheduler)
    average.updates = step
    return step


def _trainable(policy: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the trainable parameters, by name."""
    return {
        name: parameter.detach().clone() for name, parameter in policy.named_parameters() if parameter.requires_grad
    }


def _point_last_at(checkpoint: Path) -> None:
    temporary = checkpoint.with_name(".last.partial")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(checkpoint.name)
    os.replace(temporary, checkpoint.with_name("last"))
