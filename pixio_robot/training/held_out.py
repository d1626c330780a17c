"""Episodes that a training leaves out, and what its policy foresees of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from pixio_robot.demos import DemoStore
from pixio_robot.evaluation.checkpoints import open_checkpoint
from pixio_robot.evaluation.open_loop import Foreseen
from pixio_robot.training.data.batches import TrainingBatches, Windows

_WINDOWS = 32  # foreseen at once


def held_out_episodes(store: DemoStore, share: float, num_episodes: int | None, seed: int) -> list[int]:
    """Draw episodes to leave out of training: of every task its share, rounded, but at least one in all.

    Args:
        store: Demonstrations.
        share: Of the episodes; 0 leaves none out.
        num_episodes: Only the first so many are used; None uses all.
        seed: Decides which.

    Returns:
        Their numbers; none where there is one episode alone.
    """
    tasks = np.array(store.episode_tasks[:num_episodes])
    if share <= 0 or len(tasks) < 2:
        return []
    generator = np.random.default_rng([seed, 3])  # another stream than the order's and the copies'
    drawn: list[int] = []
    for task in np.unique(tasks):
        members = generator.permutation(np.flatnonzero(tasks == task))
        drawn += members[: min(round(share * len(members)), len(members) - 1)].tolist()
    return sorted(drawn or [int(generator.integers(len(tasks)))])


def foresee(
    checkpoint: Path, store: DemoStore, batches: TrainingBatches, windows: Windows, episodes: Sequence[int]
) -> list[Foreseen]:
    """Predict the actions of episodes from their recorded observations, a chunk wherever a new one would be due.

    Args:
        checkpoint: A `pretrained_model` folder.
        store: Demonstrations.
        batches: Reads observations as the training does.
        windows: What the policy sees and predicts at a step.
        episodes: Numbers of episodes.
    """
    config: Any = open_checkpoint(checkpoint)
    policy: Any = get_policy_class(config.type).from_pretrained(checkpoint, config=config).eval()
    preprocess, postprocess = make_pre_post_processors(config, pretrained_path=str(checkpoint))
    mean_A = store.statistics()[ACTION]["mean"]

    def chunks(observations: dict[str, Any], seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            return postprocess(policy.predict_action_chunk(preprocess(observations))).float().cpu()

    found = []
    for number in episodes:
        span = store.episode_range(number)
        steps_N = np.arange(span.start, span.stop, config.n_action_steps)
        parts = []
        for some in np.split(steps_N, range(_WINDOWS, len(steps_N), _WINDOWS)):
            batch = batches.at(some)
            # From now on: a chunk of a policy with a history may begin in the past.
            actions_BHA, pads_BH = (batch[key][:, -windows.first_action :] for key in (ACTION, "action_is_pad"))
            observations = {
                key: value for key, value in batch.items() if key.startswith("observation.") or key == "task"
            }
            chunk_BHA = chunks(observations, seed=number)
            horizon = min(chunk_BHA.shape[1], actions_BHA.shape[1])
            parts.append([values[:, :horizon].numpy() for values in (chunk_BHA, actions_BHA, ~pads_BH)])
        predicted_NHA, recorded_NHA, valid_NH = (np.concatenate(some) for some in zip(*parts, strict=True))
        baselines = _baselines(store, span, steps_N, recorded_NHA, mean_A)
        found.append(Foreseen(number, steps_N - span.start, predicted_NHA, recorded_NHA, valid_NH, baselines))
    return found


def _baselines(
    store: DemoStore, span: range, steps_N: np.ndarray, recorded_NHA: np.ndarray, mean_A: np.ndarray
) -> dict[str, np.ndarray]:
    """Guess without looking: the mean action, the last action again, and, where actions are poses, the present pose."""
    shape = recorded_NHA.shape
    actions = store.read_steps(ACTION, np.maximum(steps_N - 1, span.start))
    guesses = {"mean action": mean_A, "last action again": actions[:, None]}
    if store.names.get(ACTION) and store.names.get(ACTION) == store.names.get(OBS_STATE):
        guesses["hold the pose"] = store.read_steps(OBS_STATE, steps_N)[:, None]
    return {name: np.broadcast_to(guess, shape) for name, guess in guesses.items()}
