"""Tensors in safetensors files that carry a checksum: what a disk or a copy has changed is noticed.

crc32c over names, shapes, values and what else the file says of itself: it finds damage, not forgers. Files that others wrote
have none, and are read as they are.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import google_crc32c
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixio_robot.common.errors import UserError

_CHECKSUM = "crc32c"


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors, what is said of them, and the checksum of both; not atomic by itself."""
    save_file(dict(tensors), file, metadata={**metadata, _CHECKSUM: _checksum(tensors, metadata)})


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        UserError: It carries a checksum, and another content than was written.
        SafetensorError, OSError: It is no such file, or cannot be read.
    """
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() or {}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    written = metadata.pop(_CHECKSUM, None)
    if written is not None and written != _checksum(tensors, metadata):
        raise UserError(
            f"{file} is damaged: its values are not those that were written (their checksum differs); copy or make it again."
        )
    return tensors


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    checksum = google_crc32c.Checksum(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        checksum.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        checksum.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return checksum.hexdigest().decode()
