"""The loss of a LeRobot policy, as the engine trains it, and its checkpoints in LeRobot's layout."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from lerobot.policies import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from torch import Tensor, nn

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.files import write_json
from pixio_robot.common.storage.kept import seal
from pixio_robot.encoders import VisionEncoder
from pixio_robot.engine.objective import Batch
from pixio_robot.engine.processes import Processes
from pixio_robot.evaluation.checkpoints import MODEL_FOLDER

type Processors = tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]


@dataclass(frozen=True)
class Part:
    """A batch on the device, and over how much each term of its loss is a mean."""

    batch: dict[str, Tensor]
    weights: list[int]


class PolicyLoss(nn.Module):
    """A policy whose forward pass gives the terms of its loss."""

    def __init__(self, policy: PreTrainedPolicy) -> None:
        """Take any LeRobot policy; the loss of one that is not ours is one term."""
        super().__init__()
        self.policy = policy

    def weights(self, batch: dict[str, Tensor]) -> list[int]:
        """Return over how much each term is a mean; of another's policy, the actions within their episodes."""
        if hasattr(self.policy, "loss_weights"):
            return self.policy.loss_weights(batch)  # type: ignore[operator]
        return [int((~batch["action_is_pad"]).sum())]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the terms (K,)."""
        if hasattr(self.policy, "loss_terms"):
            return torch.stack(list(self.policy.loss_terms(batch).values()))  # type: ignore[operator]
        return self.policy(batch)[0][None]


class PolicyObjective:
    """Behaviour cloning of the demonstrations by a policy."""

    phase = "training"
    unit = "windows"

    def __init__(
        self,
        policy: PreTrainedPolicy,
        processors: Processors,
        information: Mapping[str, Any],
        encoder_frozen_steps: int,
        processes: Processes,
    ) -> None:
        """Train a policy in place.

        Args:
            policy: On its device.
            processors: Pre- and post-processing pipelines; the first is applied to every batch.
            information: What the policy was trained in: environment, versions, seeds; saved with each checkpoint.
            encoder_frozen_steps: First steps during which an encoder that trains is frozen.
            processes: Each takes its part of every batch.
        """
        self.module = PolicyLoss(policy)
        self.policy, self.processors, self.information = policy, processors, information
        self.encoder = find_encoder(policy)
        self._frozen_steps, self._processes = encoder_frozen_steps, processes

    def begin_step(self, step: int) -> None:
        """Freeze the encoder or release it."""
        if self.encoder is not None:
            self.encoder.freeze_temporarily(step <= self._frozen_steps)

    def parts(self, batch: Batch[dict[str, Any]]) -> list[Part]:
        """Return this process's windows, normalised.

        Raises:
            UserError: There are more processes than windows in the batch.
        """
        count, windows = self._processes.count, batch.data
        if len(windows["action_is_pad"]) < count:
            raise UserError(
                f"A batch of {len(windows['action_is_pad'])} windows cannot be shared by {count} processes: set "
                f"trainer.batch_size to {count} or more, or start fewer processes."
            )
        own = {key: value[self._processes.rank :: count] for key, value in windows.items()} if count > 1 else windows
        return [Part(self.processors[0](own), self.module.weights(own))]

    def weights(self, part: Part) -> Sequence[float]:
        """Return over how much each term is a mean."""
        return part.weights

    def loss(self, module: nn.Module, part: Part) -> Tensor:
        """Return the terms of the policy's loss."""
        return module(part.batch)

    def identity(self) -> dict[str, Any]:
        """Return the policy's kind, the sizes of what it trains, and the weights that its frozen encoder has."""
        sizes = [(name, list(value.shape)) for name, value in self.policy.named_parameters() if value.requires_grad]
        digest = hashlib.blake2b(json.dumps(sizes).encode(), digest_size=4).hexdigest()
        reference = self.encoder.reference() if self.encoder is not None else None
        return {
            "policy": self.policy.config.type,
            "trainable parameters": f"{len(sizes)} tensors ({digest})",
            "encoder weights": reference.hash if reference is not None else None,
        }

    def save(self, folder: Path) -> None:
        """Write `pretrained_model/`, with `pixio_run.json` beside LeRobot's files."""
        model_dir = folder / MODEL_FOLDER
        self.policy.save_pretrained(model_dir)
        for processor in self.processors:
            processor.save_pretrained(model_dir)
        write_json(model_dir / "pixio_run.json", dict(self.information))
        seal(model_dir, "*.safetensors")  # people may change what is JSON


def find_encoder(policy: nn.Module) -> VisionEncoder | None:
    """Return the vision encoder of a policy; None where it has none."""
    return next((module for module in policy.modules() if isinstance(module, VisionEncoder)), None)


def check_statistics_unchanged(checkpoint: Path, processors: Processors) -> None:
    """Check that processors normalise as those of a checkpoint do.

    Raises:
        UserError: They do not: the demonstrations are other ones.
    """
    for processor in processors:
        described = json.loads((checkpoint / MODEL_FOLDER / f"{processor.name}.json").read_text())
        for step, saved in zip(processor.steps, described["steps"], strict=True):
            if "state_file" not in saved:
                continue
            then = safetensors.torch.load_file(checkpoint / MODEL_FOLDER / saved["state_file"])
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
