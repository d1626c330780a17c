"""Checkpoints of a pretraining run: a folder per step that exists whole or not at all, and resuming from it."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pixio_robot.errors import UserError
from pixio_robot.pretraining.mae import PixioMAE
from pixio_robot.pretraining.weights import save_mae

STATE_FILE = "training_state.pt"


def save_checkpoint(
    folder: Path, step: int, mae: PixioMAE, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> None:
    """Write `folder/<step>` and remove older ones.

    Args:
        folder: The run's `checkpoints` folder.
        step: Optimiser steps done.
        mae: The autoencoder; saved in float32.
        optimizer: Its state is saved beside the weights. Random numbers need none: every step seeds its own.
        identity: Plain values that a resumed run must share, `variant` among them.
    """
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_mae(mae, identity["variant"], unfinished)
    state = {"step": step, "optimizer": optimizer.state_dict(), "identity": identity}
    torch.save(state, unfinished / STATE_FILE)
    finished = folder / f"{step:07d}"
    os.replace(unfinished, finished)
    for other in folder.iterdir():
        if other != finished:
            shutil.rmtree(other)


def latest_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint with the most steps, or None."""
    return max((entry for entry in folder.glob("[0-9]*")), default=None)


def restore_checkpoint(
    checkpoint: Path, mae: PixioMAE, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> int:
    """Load weights and optimiser state in place and return the number of steps done.

    Raises:
        UserError: The checkpoint belongs to another variant, other settings or other images.
    """
    state = torch.load(checkpoint / STATE_FILE, map_location="cpu", weights_only=True)
    saved = state["identity"]
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
    _load(mae.encoder, checkpoint / "encoder.safetensors")
    _load(mae.decoder, checkpoint / "decoder.safetensors")
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def _load(module: nn.Module, file: Path) -> None:
    module.load_state_dict(load_file(file))
