"""Checkpoints in LeRobot's folder layout, complete or absent, with all that an exact resume needs.

`checkpoints/<step>/pretrained_model` is what `lerobot-eval --policy.path=` reads: the averaged weights, the
config and the processors. `checkpoints/<step>/training_state` holds the raw weights, optimiser and RNG. The links
`checkpoints/last` and `checkpoints/best` point at the steps that are kept.
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
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pixio_robot.common.errors import UserError
from pixio_robot.encoders.references import REFERENCE_KEY
from pixio_robot.engine.average import WeightAverage

_RAW_WEIGHTS = "raw_weights.safetensors"
_SCALER = "gradient_scaler.json"


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
    scaler: GradScaler | None = None,
) -> Path:
    """Write a checkpoint and point `checkpoints/last` at it; of earlier ones the best is kept.

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
        scaler: Of the loss in float16; saved for resuming.

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
    if scaler is not None:
        (temporary / "training_state" / _SCALER).write_text(json.dumps(scaler.state_dict()))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    point_at("last", final)
    return final / "pretrained_model"


def load_checkpoint(
    run_dir: Path,
    policy: PreTrainedPolicy,
    average: WeightAverage,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    processors: tuple[PolicyProcessorPipeline, PolicyProcessorPipeline],
    scaler: GradScaler | None = None,
) -> int:
    """Restore the last checkpoint of a run and return its step; 0 if there is none yet.

    Raises:
        UserError: The checkpoint was made by another policy, on other weights of the encoder, or with other
            normalisation statistics.
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
    _check_statistics_unchanged(last, processors)
    # Running statistics are of the raw weights anyway; a reference to frozen weights is checked when it is loaded.
    others = {name for name, _ in policy.named_buffers()}
    state = {key: value for key, value in averaged.items() if key in others or key.endswith(REFERENCE_KEY)}
    policy.load_state_dict({**state, **raw}, strict=False)
    average.load({key: averaged[key] for key in raw})
    step, _, _ = load_training_state(last.resolve(), optimizer, scheduler)
    average.updates = step
    if scaler is not None and (state_dir / _SCALER).is_file():
        scaler.load_state_dict(json.loads((state_dir / _SCALER).read_text()))
    return step


def point_at(name: str, checkpoint: Path) -> None:
    """Point the link `checkpoints/<name>` at a checkpoint, and remove the checkpoints that no link points at."""
    temporary = checkpoint.with_name(f".{name}.partial")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(checkpoint.name)
    os.replace(temporary, checkpoint.with_name(name))
    kept = {path.readlink().name for path in checkpoint.parent.iterdir() if path.is_symlink()}
    for other in checkpoint.parent.glob("[0-9]*"):
        if other.name not in kept:
            shutil.rmtree(other)


def _check_statistics_unchanged(
    checkpoint: Path, processors: tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]
) -> None:
    """Check that the processors normalise as those of the checkpoint do."""
    for processor in processors:
        described = json.loads((checkpoint / "pretrained_model" / f"{processor.name}.json").read_text())
        for step, saved in zip(processor.steps, described["steps"], strict=True):
            if "state_file" not in saved:
                continue
            then = safetensors.torch.load_file(checkpoint / "pretrained_model" / saved["state_file"])
            now = step.state_dict()
            names = [
                name
                for name in sorted(then.keys() | now.keys())
                if name not in then
                or name not in now
                or then[name].shape != now[name].shape
                or not torch.allclose(then[name].cpu(), now[name].cpu(), rtol=1e-4)
            ]
            if names:
                raise UserError(
                    f"{checkpoint.resolve()} was trained with other normalisation statistics than the demonstrations now "
                    f"have ({', '.join(names[:3])} differ): bring back the demonstrations it began with, or start a new "
                    f"run; the checkpoint stays as it is."
                )


def _trainable(policy: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the trainable parameters, by name."""
    return {
        name: parameter.detach().clone() for name, parameter in policy.named_parameters() if parameter.requires_grad
    }
