"""Frozen weights named in a checkpoint instead of repeated in it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.encoders.config import is_pretrained
from pixio_robot.encoders.hub import pretrained_weights
from pixio_robot.encoders.torchscript import TORCHSCRIPT

REFERENCE_KEY = "weights_reference"
"""The tensor of a `VisionEncoder`'s state that stands in for its backbone's weights."""


@dataclass(frozen=True)
class WeightsReference:
    """Which weights a checkpoint leaves out."""

    name: str
    """The encoder, as in `EncoderConfig.name`."""
    weights: str
    """`pretrained`, with the commit where they are the hub's, or the path of the weights file."""
    hash: str
    """What `weights_hash` gives for the loaded backbone, without adapters."""

    @property
    def _other_way(self) -> str:
        if self.name == TORCHSCRIPT:
            return ""
        return ", or train with encoder.self_contained=true to keep the weights in the checkpoint"

    def pack(self) -> Tensor:
        """Return the reference as a uint8 tensor of JSON: a state dict, like safetensors, holds only tensors."""
        return torch.frombuffer(bytearray(json.dumps(asdict(self)).encode()), dtype=torch.uint8)

    @classmethod
    def unpack(cls, tensor: Tensor) -> "WeightsReference":
        """Undo `pack`."""
        return cls(**json.loads(bytes(tensor.cpu().tolist())))

    def find(self, configured: str) -> Path:
        """Return the weights file or folder.

        Args:
            configured: The weights that the loading config names; they are looked for first, so that a file that
                has moved can be pointed to.

        Raises:
            UserError: No file is there, or pretrained weights cannot be reached.
        """
        for place in (configured, self.weights, Path(self.weights).name):
            if is_pretrained(place):
                return pretrained_weights(self.name, place)
            if place != "random" and Path(place).expanduser().exists():
                return Path(place).expanduser()
        raise UserError(
            f"This checkpoint refers to the weights of {self.name} in {self.weights} (hash {self.hash}), which is not "
            f"there: put {Path(self.weights).name} there or into the current folder{self._other_way}."
        )

    def check(self, found: str, place: Path | str) -> None:
        """Compare the hash of weights that were found with the one referred to.

        Raises:
            UserError: They are other weights.
        """
        if found != self.hash:
            raise UserError(
                f"{place} holds other weights of {self.name} (hash {found}) than the checkpoint was trained on "
                f"(hash {self.hash}): give the original file ({self.weights}){self._other_way}."
            )
