"""What a policy does in place of the demonstrator, on demonstrations that it was not trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.factory import get_policy_class, make_pre_post_processors

from pixio_robot.demos import DemoStore
from pixio_robot.evaluation.checkpoints import open_checkpoint
from pixio_robot.images.preprocessing import frames_to_images


def explained_actions(checkpoint: Path, store: DemoStore, mean_action: np.ndarray) -> list[float]:
    """Return for each episode which share of its actions' squared distance from the mean action a policy explains.

    1 is the demonstrator's own actions, 0 the mean action at every step; a policy may do worse than that.

    Args:
        checkpoint: A `pretrained_model` folder.
        store: Demonstrations held out.
        mean_action: Of the demonstrations trained on (A,).
    """
    config = open_checkpoint(checkpoint)
    policy: Any = get_policy_class(config.type).from_pretrained(checkpoint, config=config)
    before, after = make_pre_post_processors(config, pretrained_path=str(checkpoint))
    scores = []
    for number in range(store.num_episodes):
        episode = store.episode(number)
        policy.reset()
        errors = np.zeros(2)
        for step, action in enumerate(episode["action"]):
            observed = {"observation.state": torch.from_numpy(episode["observation.state"][step])}
            for key in store.image_keys:
                observed[key] = frames_to_images(torch.from_numpy(episode[key][step][None]))[0]
            predicted = after(policy.select_action(before(observed)))[0].cpu().numpy()
            errors += ((predicted - action) ** 2).sum(), ((mean_action - action) ** 2).sum()
        scores.append(float(1 - errors[0] / errors[1]) if errors[1] else 0.0)
    return scores
