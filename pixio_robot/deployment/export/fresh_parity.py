"""What a checkpoint makes of observations that its export was not checked on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.export.frames import check_observations

_LAST_EPISODE = -1
_SAME = "give the checkpoint that it was exported from"


def fresh_parity(
    checkpoint: Path, store_path: str | None
) -> Callable[[Mapping[str, Any]], tuple[Mapping[str, Tensor], Tensor]]:
    """Return a function from an artifact's metadata to the last episode of a store and the eager path's actions on it.

    Args:
        checkpoint: The `pretrained_model` folder that the artifact was exported from.
        store_path: A DemoStore; None takes the one that the checkpoint was trained on.

    Raises:
        UserError: (Of the function returned.) The artifact is no policy's, or that of another checkpoint.
    """

    def eager(metadata: Mapping[str, Any]) -> tuple[Mapping[str, Tensor], Tensor]:
        from pixio_robot.deployment.export.lerobot_policy import open_policy
        from pixio_robot.evaluation.checkpoints import open_checkpoint

        if metadata["kind"] != "policy":
            raise UserError("The artifact is an encoder's, which has no checkpoint: leave checkpoint out.")
        trained = open_checkpoint(checkpoint).type
        if trained != metadata["policy"]:
            raise UserError(f"The artifact is a {metadata['policy']}, but {checkpoint} holds a {trained}; {_SAME}.")
        opened = open_policy(checkpoint, metadata["sampling_steps"])
        encoder = opened.metadata()["encoder"]
        if encoder != metadata["encoder"]:
            raise UserError(
                f"The artifact's encoder is {_named(metadata['encoder'])}, that of {checkpoint} is {_named(encoder)}; "
                f"{_SAME}."
            )
        observations = check_observations(checkpoint, store_path, episode=_LAST_EPISODE)
        wanted = {key: observations[key] for key in (*opened.image_sizes, "observation.state")}
        if opened.noise_shape is not None:
            rows = len(wanted["observation.state"])
            wanted["noise"] = torch.randn((rows, *opened.noise_shape), generator=torch.Generator().manual_seed(1))
        return wanted, opened.eager(wanted)

    return eager


def _named(encoder: Mapping[str, str]) -> str:
    return f"{encoder['name']} with the weights {encoder['weights_hash'][:16]}"
