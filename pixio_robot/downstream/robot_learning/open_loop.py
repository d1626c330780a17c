"""What a policy does in place of the demonstrator, on demonstrations that it was not trained on."""

from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.demos import DemoStore
from pixio_robot.evaluation.checkpoints import open_checkpoint
from pixio_robot.training.data.batches import TrainingBatches, Windows
from pixio_robot.training.held_out import HeldOut


def explained_actions(checkpoint: Path, store: DemoStore, mean_action: np.ndarray) -> list[float]:
    """Return for each episode which share of its actions' squared distance from the mean action a policy explains.

    1 is the demonstrator's own actions, 0 the mean action at every step; a policy may do worse than that.

    Args:
        checkpoint: A `pretrained_model` folder of a policy that predicts one action at a time.
        store: Demonstrations held out.
        mean_action: Of the demonstrations trained on (A,).
    """
    config: Any = open_checkpoint(checkpoint)
    windows = Windows.of(config)
    batches = TrainingBatches(store, list(config.image_features), windows, batch_size=1, seed=0, cache=None)
    scores = []
    foreseen, _ = HeldOut(store, range(store.num_episodes), batches, windows).foreseen(checkpoint)
    for episode in foreseen:
        recorded_NA = episode.recorded_NHA[:, 0]
        left = float(((episode.predicted_NHA[:, 0] - recorded_NA) ** 2).sum())
        whole = float(((mean_action - recorded_NA) ** 2).sum())
        scores.append(1 - left / whole if whole else 0.0)
    return scores
