"""Artifacts that are no TorchScript: their golden pair, and calls checked against it. Needs torch alone."""

import base64
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError


class GoldenArtifact(ABC):
    """A file with a golden pair, called as a TorchScript artifact is."""

    def __init__(self, golden: str | bytes) -> None:
        """Take the golden pair from a text by `golden_text`."""
        pair = torch.load(io.BytesIO(base64.b64decode(golden)), weights_only=True)
        self.golden_observation: dict[str, Tensor] = pair["observation"]
        self.golden_output: Tensor = pair["output"]

    @torch.no_grad()
    def __call__(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return actions (B, H, A) in raw units, or tokens (B, N, D).

        Raises:
            UserError: An input is missing, or of another dtype or shape than the golden observation's.
        """
        rows = {len(observation[key]) for key in self.golden_observation if key in observation}
        for key, example in self.golden_observation.items():
            given = observation.get(key)
            if given is None:
                raise UserError(f"{key} is missing: the artifact reads {', '.join(self.golden_observation)}.")
            if given.shape[1:] != example.shape[1:] or given.dtype != example.dtype or len(rows) != 1:
                raise UserError(
                    f"{key} must be {example.dtype} (B, {', '.join(map(str, example.shape[1:]))}), with the same B for "
                    f"all, not {given.dtype} {tuple(given.shape)}."
                )
        return self._run({key: observation[key] for key in self.golden_observation})

    @abstractmethod
    def _run(self, observation: dict[str, Tensor]) -> Tensor:
        """Return the output for inputs that fit."""


def golden_text(observation: Mapping[str, Tensor], output: Tensor) -> str:
    """Return a golden observation and output as text."""
    content = io.BytesIO()
    torch.save({"observation": dict(observation), "output": output}, content)
    return base64.b64encode(content.getvalue()).decode()
