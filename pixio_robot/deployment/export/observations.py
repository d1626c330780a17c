"""Real observations to check artifacts on: a whole episode, as the policy would have met it.

Shape letters: N observations, O observation steps, H and W image size.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.utils.constants import ACTION
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.common.worlds import RUN_FILE
from pixio_robot.demos import DemoStore
from pixio_robot.demos.recorded import moves_of
from pixio_robot.evaluation.checkpoints import open_checkpoint

_NUM_CHECKED = 8
_LAST_EPISODE = -1
_SAME = "give the checkpoint that it was exported from"


def check_frames(store_path: str | None) -> Tensor:
    """Return frames of the first camera of a store, uint8 (N, H, W, 3); None takes the newest store there is."""
    if store_path is None:
        found = sorted(Path("outputs/demos").glob("*.zarr"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UserError(
                "No demonstrations under outputs/demos to check the export on: give some with frames=<DemoStore>, or "
                "make some with scripts/collect_demos.py."
            )
        store_path = str(found[-1])
    store = DemoStore.open(store_path)
    spread = np.unique(np.linspace(0, store.num_steps - 1, _NUM_CHECKED).astype(np.int64))
    return torch.from_numpy(store.read_steps(store.image_keys[0], spread))


def demonstrations(checkpoint: Path, store_path: str | None) -> DemoStore:
    """Open a store, by default the one that a checkpoint was trained on.

    Raises:
        UserError: The folder is no checkpoint, or there is no store.
    """
    if store_path is None:
        open_checkpoint(checkpoint)  # says what is wrong with the folder, rather than with its demonstrations
        run_file = checkpoint / RUN_FILE
        store_path = json.loads(run_file.read_text()).get("demonstrations") if run_file.exists() else None
        if store_path is None or not Path(store_path).exists():
            raise UserError(
                f"The demonstrations that {checkpoint} was trained on are not here: give real observations to check "
                "the export on with frames=<DemoStore>."
            )
    return DemoStore.open(store_path)


def episode_observations(store: DemoStore, observation_steps: int, episode: int = 0) -> dict[str, Tensor]:
    """Return the observations of an episode, each with the history that a policy reads.

    The first observation of the episode stands for those before it, as in rollouts.

    Args:
        store: The demonstrations.
        observation_steps: Number O of observations that the policy reads.
        episode: Its number; −1 is the last.

    Returns:
        By key: frames uint8 (N, [O,] H, W, 3), `observation.state` (N, [O,] S).
    """
    episode_range = store.episode_range(episode % store.num_episodes)
    steps = np.arange(episode_range.start, episode_range.stop)
    rows = np.maximum(np.arange(len(steps))[:, None] + np.arange(1 - observation_steps, 1), 0)
    observations = {}
    for key in store.features:
        if key.startswith("observation."):
            values = store.read_steps(key, steps)
            observations[key] = torch.from_numpy(values[rows] if observation_steps > 1 else values)
    return observations


def largest_steps(store: DemoStore) -> dict[str, list[float]]:
    """Return, for an artifact's metadata, how far each number of the action moves in demonstrations at most.

    Args:
        store: The demonstrations, of which all episodes count.

    Returns:
        `largest_change` from one step of an episode to the next, and `largest_value`, the largest absolute one; each (A,).
    """
    moves = moves_of(store.read(ACTION, 0, store.num_steps), store.episode_ends)
    return {name: moves[name] for name in ("largest_change", "largest_value")}


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

        if metadata["kind"] != "policy":
            raise UserError("The artifact is an encoder's, which has no checkpoint: leave checkpoint out.")
        trained = open_checkpoint(checkpoint).type
        if trained != metadata["policy"]:
            raise UserError(f"The artifact is a {metadata['policy']}, but {checkpoint} holds a {trained}; {_SAME}.")
        opened = open_policy(checkpoint, metadata["sampling_steps"])
        ours, theirs = (
            f"{encoder['name']} with the weights {encoder['weights_hash'][:16]}"
            for encoder in (metadata["encoder"], opened.metadata()["encoder"])
        )
        if ours != theirs:
            raise UserError(f"The artifact's encoder is {ours}, that of {checkpoint} is {theirs}; {_SAME}.")
        store = demonstrations(checkpoint, store_path)
        observations = episode_observations(store, opened.layout.observation_steps, _LAST_EPISODE)
        observed = opened.observed(observations, seed=1)
        return observed, opened.eager(observed)

    return eager
