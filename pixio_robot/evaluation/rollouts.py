"""Measure a policy: one rollout per seed, spread over processes, each through LeRobot's own `rollout`.

Episodes run one at a time, in single environments, with the random generators seeded by the episode's seed.
An episode therefore gives the same result whatever the number of workers and the order; and the same success
as `lerobot-eval --eval.batch_size=1` with that seed, since the policy, the processors and the loop are
LeRobot's.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lerobot.envs import EnvConfig, make_env_pre_post_processors
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.scripts.lerobot_eval import rollout
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot.utils.random_utils import set_seed
from rich.console import Console
from tqdm import tqdm

from pixio_robot.errors import UserError
from pixio_robot.evaluation.checkpoints import (
    check_fit,
    check_seeds,
    open_checkpoint,
    warn_of_other_simulation,
)
from pixio_robot.evaluation.environments import describe_env
from pixio_robot.evaluation.progress import rollout_progress
from pixio_robot.evaluation.record import Crash, Episode, EvaluationRecord, software_versions
from pixio_robot.evaluation.videos import FrameRecorder, write_rollout_video
from pixio_robot.evaluation.workers import Outcome, WorkerPool

_ATTEMPTS = 2
# So many lost episodes without a single finished one are no accident of theirs.
_LOST_BEFORE_GIVING_UP = 3


@dataclass(frozen=True)
class _Attempt:
    """A rollout to run, and in which case to keep its video."""

    seed: int
    number: int
    keep_success: bool
    keep_failure: bool


def evaluate_policy(
    checkpoint: Path,
    env_config: EnvConfig,
    seeds: Sequence[int],
    *,
    workers: int,
    videos_dir: Path | None = None,
    n_videos: int = 0,
    on_episode: Callable[[Episode], None] | None = None,
    demonstration_seeds: Collection[int] = (),
    console: Console | None = None,
) -> EvaluationRecord:
    """Roll a policy out once per seed and record what happened.

    Args:
        checkpoint: A `pretrained_model` folder in LeRobot's format.
        env_config: The environment; its cameras, state and action must fit the policy.
        seeds: One episode each.
        workers: Number of processes.
        videos_dir: Folder for the videos; its parent is where the record's video paths start.
        n_videos: At most so many videos are kept: the first failures, up to half of them (more when successes
            are few), and the first successes.
        on_episode: Called with every episode when it is over, in the order of finishing.
        demonstration_seeds: Seeds that no evaluation may use.
        console: Where progress is shown; standard output by default.

    Returns:
        The record, its episodes in the order of `seeds`. An attempt that crashes is repeated once; an episode
        whose attempts both crash counts as a failure and says so.

    Raises:
        UserError: The folder is no checkpoint, does not fit the environment, or the seeds are unusable; or
            the environment cannot start.
        RuntimeError: No episode could be run.
    """
    start = time.perf_counter()
    if workers < 1:
        raise UserError(f"{workers} processes cannot run rollouts: ask for at least 1 worker.")
    check_fit(open_checkpoint(checkpoint), env_config)
    check_seeds(checkpoint, seeds, demonstration_seeds)
    versions = software_versions()
    warn_of_other_simulation(checkpoint, env_config, versions)
    if videos_dir is not None:
        videos_dir.mkdir(parents=True, exist_ok=True)

    board = _Board(seeds, n_videos if videos_dir is not None else 0)
    workers = min(workers, len(seeds))
    with (
        rollout_progress(len(seeds), console) as advance,
        WorkerPool(_Rollouts, (checkpoint, env_config, videos_dir), workers, preload=[__name__]) as pool,
    ):
        while not board.is_complete:
            while board.has_waiting and pool.has_idle_worker:
                pool.submit(board.next_attempt())
            for outcome in pool.wait():
                episode = board.note(outcome)
                if episode is not None:
                    advance(episode.success)
                    if on_episode is not None:
                        on_episode(episode)

    return EvaluationRecord(
        episodes=board.episodes_with_videos(videos_dir),
        env=describe_env(env_config),
        render_profile=getattr(env_config, "render_profile", None),
        versions=versions,
        checkpoint=str(checkpoint),
        seconds=time.perf_counter() - start,
        workers=workers,
        crashes=tuple(board.crashes),
    )


class _Board:
    """Which episodes wait, which are over, and which videos are worth keeping."""

    def __init__(self, seeds: Sequence[int], n_videos: int) -> None:
        self._seeds, self._n_videos = list(seeds), n_videos
        self._waiting = deque((seed, 1) for seed in seeds)
        self._episodes: dict[int, Episode] = {}
        self.crashes: list[Crash] = []

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def is_complete(self) -> bool:
        return len(self._episodes) == len(self._seeds)

    def next_attempt(self) -> _Attempt:
        seed, number = self._waiting.popleft()
        return _Attempt(seed, number, keep_success=self._may_show(seed, True), keep_failure=self._may_show(seed, False))

    def note(self, outcome: Outcome[_Attempt, Episode]) -> Episode | None:
        """Take in the end of an attempt; return the episode if that was its last."""
        attempt, episode = outcome.task, outcome.result
        if outcome.crash is not None:
            self.crashes.append(Crash(attempt.seed, attempt.number, outcome.crash))
            if attempt.number < _ATTEMPTS:
                self._waiting.appendleft((attempt.seed, attempt.number + 1))
                return None
            episode = Episode(attempt.seed, success=False, steps=0, total_reward=0.0, seconds=0.0, error=outcome.crash)
        assert episode is not None
        self._episodes[attempt.seed] = episode
        n_lost = sum(other.error is not None for other in self._episodes.values())
        if n_lost == len(self._episodes) >= min(_LOST_BEFORE_GIVING_UP, len(self._seeds)):
            raise RuntimeError(f"No episode could be run: {outcome.crash}\n{outcome.details}")
        return episode

    def episodes_with_videos(self, videos_dir: Path | None) -> tuple[Episode, ...]:
        """Return all episodes in order, and remove the videos of those that are not to be shown."""
        episodes = [self._episodes[seed] for seed in self._seeds]
        if videos_dir is None:
            return tuple(episodes)
        failures = [episode for episode in episodes if episode.video and not episode.success]
        successes = [episode for episode in episodes if episode.video and episode.success]
        n_failures = max(self._n_videos // 2, self._n_videos - len(successes))
        shown = failures[:n_failures]
        shown += successes[: self._n_videos - len(shown)]
        for episode in failures + successes:
            if episode not in shown:
                assert episode.video is not None
                (videos_dir.parent / episode.video).unlink()
        return tuple(episode if episode in shown else replace(episode, video=None) for episode in episodes)

    def _may_show(self, seed: int, success: bool) -> bool:
        # Enough such episodes before this one are known already: it cannot be among the first ones. That
        # holds in whatever order episodes finish, so that the choice of videos does not depend on it.
        before = self._seeds[: self._seeds.index(seed)]
        known = [self._episodes[other] for other in before if other in self._episodes]
        return sum(episode.success == success and episode.error is None for episode in known) < self._n_videos


class _Rollouts:
    """In a worker: a policy and an environment, loaded once, that turn attempts into episodes."""

    def __init__(self, checkpoint: Path, env_config: EnvConfig, videos_dir: Path | None) -> None:
        register_third_party_plugins()
        # tqdm, which LeRobot's rollout uses, would make a semaphore that a killed worker leaves behind.
        tqdm.set_lock(threading.RLock())
        self._fps, self._videos_dir = env_config.fps, videos_dir
        self._env = _start_env(env_config)
        # From here to the end of `_run` the steps are those of lerobot.scripts.lerobot_eval.eval_main.
        torch.backends.cuda.matmul.allow_tf32 = True
        config = open_checkpoint(checkpoint)
        self._config = config
        self._policy = make_policy(cfg=config, env_cfg=env_config, rename_map={}).eval()
        self._preprocessor, self._postprocessor = make_pre_post_processors(
            policy_cfg=config,
            pretrained_path=str(checkpoint),
            preprocessor_overrides={
                "device_processor": {"device": str(self._policy.config.device)},
                "rename_observations_processor": {"rename_map": {}},
            },
        )
        # Other policies than ours do not say, and are shown everything.
        self._env.policy_looks = getattr(self._policy, "looks_at_next_observation", self._env.policy_looks)
        self._env_preprocessor, self._env_postprocessor = make_env_pre_post_processors(env_config, config)

    def __call__(self, attempt: _Attempt) -> Episode:
        start = time.perf_counter()
        set_seed(attempt.seed)
        self._env.recording = attempt.keep_success or attempt.keep_failure
        steps = self._run(attempt.seed)
        success = bool(steps["success"].any())
        video = None
        if attempt.keep_success if success else attempt.keep_failure:
            assert self._videos_dir is not None
            name = f"{attempt.seed}_{'success' if success else 'failure'}.mp4"
            write_rollout_video(self._videos_dir / name, self._env.frames, self._fps)
            video = f"{self._videos_dir.name}/{name}"
        return Episode(
            seed=attempt.seed,
            success=success,
            steps=steps["reward"].shape[1],
            total_reward=float(steps["reward"].sum()),
            seconds=time.perf_counter() - start,
            video=video,
        )

    def _run(self, seed: int) -> dict[str, torch.Tensor]:
        autocast = (
            torch.autocast(torch.device(str(self._config.device)).type) if self._config.use_amp else nullcontext()
        )
        with torch.no_grad(), autocast:
            return rollout(
                env=self._env,
                policy=self._policy,
                env_preprocessor=self._env_preprocessor,
                env_postprocessor=self._env_postprocessor,
                preprocessor=self._preprocessor,
                postprocessor=self._postprocessor,
                seeds=[seed],
            )


def _start_env(env_config: EnvConfig) -> FrameRecorder:
    """Make the single environment; its first reset shows a missing renderer here, not as a lost episode."""
    try:
        tasks = [env for suite in env_config.create_envs(n_envs=1).values() for env in suite.values()]
        if len(tasks) != 1:
            raise ValueError(
                f"The environment {env_config.type!r} opens {len(tasks)} tasks at once: evaluate one task at a time."
            )
        env = FrameRecorder(tasks[0])
        env.reset(seed=[0])
    except ValueError as error:
        # Plugins know nothing of our UserError: theirs is a ValueError with the same kind of sentence.
        raise UserError(str(error)) from error
    return env
