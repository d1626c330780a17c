"""Episodes that a training leaves out, and what its policy foresees of them."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE

from pixio_robot.demos import DemoStore
from pixio_robot.evaluation.checkpoints import open_checkpoint
from pixio_robot.evaluation.open_loop import Foreseen, HeldOutRecord, judge, save_pictures
from pixio_robot.reports.charts import side_by_side
from pixio_robot.training.data.batches import TrainingBatches, Windows

_WINDOWS = 32  # foreseen at once
_ENOUGH_FOR_TWO = 6


def held_out_episodes(store: DemoStore, share: float, num_episodes: int | None, seed: int) -> list[int]:
    """Draw episodes to leave out of training: of every task its share, rounded; in all at least one, and of six or more two.

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
    least = 2 if len(tasks) >= _ENOUGH_FOR_TWO else 1  # one alone gives no interval
    others = [one for one in generator.permutation(len(tasks)).tolist() if one not in drawn]
    return sorted(drawn + others[: max(least - len(drawn), 0)])


class HeldOut:
    """The episodes that a training leaves out, and how well its policy foresees them."""

    def __init__(self, store: DemoStore, episodes: Sequence[int], batches: TrainingBatches, windows: Windows) -> None:
        """Take them.

        Args:
            store: Demonstrations.
            episodes: Numbers of the episodes.
            batches: Reads observations as the training does.
            windows: What the policy sees and predicts at a step.
        """
        self._store, self._episodes, self._batches, self._windows = store, episodes, batches, windows
        self._statistics = store.statistics()[ACTION]
        self._names = store.names.get(ACTION) or [str(one) for one in range(store.features[ACTION].shape[0])]

    def look(self, checkpoint: Path) -> HeldOutRecord:
        """Judge the policy of a `pretrained_model` folder."""
        return self._judged(checkpoint, *self.foreseen(checkpoint))

    def judge(self, checkpoint: Path, run_dir: Path) -> HeldOutRecord:
        """Judge the policy of a `pretrained_model` folder, as `held_out.json` and pictures of a run folder."""
        found, executed = self.foreseen(checkpoint)
        record = self._judged(checkpoint, found, executed)
        record.save(run_dir / "held_out.json")
        save_pictures(found, record, executed, run_dir / "pictures", self._frame)
        return record

    def _judged(self, checkpoint: Path, found: list[Foreseen], executed: int) -> HeldOutRecord:
        return judge(found, self._names, np.asarray(self._statistics["std"]), executed, str(checkpoint))

    def foreseen(self, checkpoint: Path) -> tuple[list[Foreseen], int]:
        """Return what the policy foresees of each episode, and how many actions of a chunk it executes."""
        config: Any = open_checkpoint(checkpoint)
        with contextlib.redirect_stdout(io.StringIO()):  # LeRobot says that it loads weights
            policy: Any = get_policy_class(config.type).from_pretrained(checkpoint, config=config).eval()
        preprocess, postprocess = make_pre_post_processors(config, pretrained_path=str(checkpoint))

        def chunks(observations: dict[str, Any], seed: int) -> np.ndarray:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(seed)
                return postprocess(policy.predict_action_chunk(preprocess(observations))).float().cpu().numpy()

        executed = config.n_action_steps
        return [self._foresee(number, executed, chunks) for number in self._episodes], executed

    def _foresee(self, number: int, executed: int, chunks: Callable[[dict[str, Any], int], np.ndarray]) -> Foreseen:
        """Predict the actions of an episode from its recorded observations, a chunk wherever a new one would be due."""
        span = self._store.episode_range(number)
        steps_N = np.arange(span.start, span.stop, executed)
        parts = []
        for some in np.split(steps_N, range(_WINDOWS, len(steps_N), _WINDOWS)):
            batch = self._batches.at(some)
            # From now on: a chunk of a policy with a history may begin in the past.
            actions_BHA, pads_BH = (batch[key][:, -self._windows.first_action :] for key in (ACTION, "action_is_pad"))
            seen = {key: value for key, value in batch.items() if key.startswith("observation.") or key == "task"}
            chunk_BHA = chunks(seen, number)
            horizon = min(chunk_BHA.shape[1], actions_BHA.shape[1])
            parts.append([chunk_BHA[:, :horizon], actions_BHA[:, :horizon].numpy(), ~pads_BH[:, :horizon].numpy()])
        predicted_NHA, recorded_NHA, valid_NH = (np.concatenate(some) for some in zip(*parts, strict=True))
        baselines = _baselines(self._store, span, steps_N, recorded_NHA, self._statistics["mean"])
        return Foreseen(number, steps_N - span.start, predicted_NHA, recorded_NHA, valid_NH, baselines)

    def _frame(self, episode: int, step: int) -> np.ndarray:
        """Return what the cameras saw at a step of an episode, side by side (H, W, 3)."""
        at = np.array([self._store.episode_range(episode).start + step])
        return side_by_side([self._store.read_steps(key, at)[0] for key in self._store.image_keys])


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
