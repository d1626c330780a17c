"""Checkpoints of a run: a folder per step that exists whole or not at all, and resuming from it.

    <step>/state/*.safetensors       weights and the optimiser's moments, each process writing its share
    <step>/state.json                step, settings, loss scale
    <step>/images-<rank>.json        from where streams of images go on
    <step>/encoder.safetensors …     loadable results so far (not under FSDP, where no process holds them whole)

`state/` is written and read by torch.distributed.checkpoint's safetensors storage, which reads file headers and slices
only: nothing is unpickled from a file, and any number of processes resumes what any other number wrote.
"""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_sharded
from torch.distributed.checkpoint.state_dict_saver import save as save_sharded

from pixio_robot.common.errors import UserError
from pixio_robot.engine.optimizers import initial_state
from pixio_robot.pretraining.batches import merge_states
from pixio_robot.pretraining.distributed import Processes

_STATE_FILE = "state.json"


def save_checkpoint(
    folder: Path,
    step: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
    images: dict[str, Any],
    scale: dict[str, Any],
    processes: Processes,
    save_results: Callable[[Path], None] | None,
) -> None:
    """Write `folder/<step>` and remove older ones; all processes call this together.

    Args:
        folder: The run's `checkpoints` folder.
        step: Optimiser steps done.
        module: Saved in float32. Random numbers need no state: every step seeds its own.
        optimizer: Over the module's parameters.
        identity: Plain values that a resumed run must share, `variant` among them.
        images: `Batch.state` of this process.
        scale: State of the loss scaling.
        processes: Who writes what.
        save_results: Writes loadable weights into a folder; called by the main process alone.
    """
    unfinished = folder / "unfinished"
    if processes.main:
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / "state").mkdir(parents=True)
    processes.wait()
    tensors = _tensors(module, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a single process has no others to save with
        save_sharded(
            tensors,
            storage_writer=HuggingFaceStorageWriter(str(unfinished / "state"), save_distributed=True),
            no_dist=processes.count == 1,
        )
    (unfinished / f"images-{processes.rank:05d}.json").write_text(json.dumps(images))
    if processes.main:
        adam_steps = [int(state["step"]) for state in optimizer.state.values() if "step" in state]
        state = {"step": step, "adam_step": max(adam_steps), "scale": scale, "identity": identity}
        (unfinished / _STATE_FILE).write_text(json.dumps(state, indent=1))
        if save_results:
            save_results(unfinished)
    processes.wait()
    if processes.main:
        finished = folder / f"{step:07d}"
        os.replace(unfinished, finished)
        for other in folder.iterdir():
            if other != finished:
                shutil.rmtree(other)
    processes.wait()


def latest_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint with the most steps, or None."""
    return max((entry for entry in folder.glob("[0-9]*")), default=None)


def restore_checkpoint(
    checkpoint: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
    processes: Processes,
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Load weights and optimiser state in place; the number of processes may be another than when it was saved.

    Returns:
        Steps done, the merged state of the images, the state of the loss scaling.

    Raises:
        UserError: The checkpoint belongs to another variant, other settings or other images, or is unreadable.
    """
    try:
        state = json.loads((checkpoint / _STATE_FILE).read_text())
        images = merge_states(json.loads(file.read_text()) for file in sorted(checkpoint.glob("images-*.json")))
    except (OSError, ValueError) as error:
        raise UserError(f"{checkpoint} is no checkpoint of this version ({error}): start a new run.") from error
    _compare(checkpoint, state["identity"], json.loads(json.dumps(identity)))
    tensors = _tensors(module, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_sharded(
            tensors,
            storage_reader=HuggingFaceStorageReader(str(checkpoint / "state")),
            no_dist=processes.count == 1,
        )
    for kept in optimizer.state.values():
        if "step" in kept:
            kept["step"].fill_(state["adam_step"])
    return state["step"], images, state["scale"]


def _compare(checkpoint: Path, saved: dict[str, Any], identity: dict[str, Any]) -> None:
    if saved["variant"] != identity["variant"]:
        raise UserError(
            f"{checkpoint} is of {saved['variant']}, this run is of {identity['variant']}: "
            "resume with the encoder of the checkpoint or start a new run."
        )
    differing = sorted(key for key in saved.keys() | identity.keys() if saved.get(key) != identity.get(key))
    if differing:
        changes = ", ".join(f"{key} {saved.get(key)} → {identity.get(key)}" for key in differing)
        raise UserError(
            f"{checkpoint} cannot be continued with other settings ({changes}): "
            "resume with those of the checkpoint or start a new run."
        )


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name all tensors of a run, sharded or whole; the optimiser's are made where no step has been done."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        kept = initial_state(optimizer, parameter) if parameter.requires_grad else {}
        tensors.update({f"{moment}.{name}": values for moment, values in kept.items() if moment != "step"})
    return tensors
