"""Measure a policy: one rollout per seed, spread over processes, each through LeRobot's own `rollout`.

A worker runs a batch of episodes at a time, each in an environment of its own, with one call of the policy for all of
them. The seeds alone decide which episodes make a batch and how the random generators are seeded, and a batch always has
the same number of rows: an episode therefore gives the same result, bit for bit, whatever the number of workers, and
whether or not it or its neighbours had to be repeated. Batches of another size may round the policy's numbers otherwise,
by about 1e-6, as matrix products of another shape do; a success that hangs by so little can then change.

With a batch of one episode the successes are those of `lerobot-eval --eval.batch_size=1` with the same seeds, since the
policy, the processors and the loop are LeRobot's; but a policy of ours that samples gets noise by each episode's seed here,
and by torch's generator there.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from lerobot.envs import EnvConfig, make_env_pre_post_processors
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.scripts.lerobot_eval import rollout
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot.utils.random_utils import set_seed
from rich.console import Console
from tqdm import tqdm

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import phase_progress
from pixio_robot.common.versions import software_versions
from pixio_robot.common.workers import WorkerPool
from pixio_robot.common.worlds import check_world
from pixio_robot.environments import describe_env
from pixio_robot.evaluation.checkpoints import (
    check_fit,
    check_seeds,
    open_checkpoint,
    run_information,
    task_sentences,
)
from pixio_robot.evaluation.record import Episode, EvaluationRecord
from pixio_robot.evaluation.rollouts.episode_batch import EpisodeBatch, RunningEpisode
from pixio_robot.evaluation.rollouts.tries import TriedEpisode, Tries, Try
from pixio_robot.reports.videos import write_rollout_video

# Seconds after which an episode that has not ended is given up: far more than any takes, even on a slow machine.
EPISODE_TIME_LIMIT = 600.0


def evaluate_policy(
    checkpoint: Path,
    env_config: EnvConfig,
    seeds: Sequence[int],
    *,
    workers: int,
    batch_size: int = 1,
    time_limit: float = EPISODE_TIME_LIMIT,
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
        batch_size: Episodes that a worker runs side by side, with one call of the policy for all of them.
        time_limit: Seconds of wall time after which a try at an episode is given up, as if its worker had crashed;
            a batch has so many seconds for each of its episodes.
        videos_dir: Folder for the videos; its parent is where the record's video paths start.
        n_videos: At most so many videos are kept: the first failures, up to half of them (more when successes
            are few), and the first successes.
        on_episode: Called with every episode when it is over, in the order of finishing.
        demonstration_seeds: Seeds that no evaluation may use.
        console: Where progress is shown; standard output by default.

    Returns:
        The record, its episodes in the order of `seeds`. A try that crashes is repeated once, its episodes one by
        one; an episode whose tries both crash counts as a failure and says so.

    Raises:
        UserError: The folder is no checkpoint, does not fit the environment, or the seeds are unusable; or
            the environment cannot start.
        RuntimeError: No episode could be run.
    """
    start = time.perf_counter()
    if workers < 1:
        raise UserError(f"{workers} processes cannot run rollouts: ask for at least 1 worker.")
    if batch_size < 1:
        raise UserError(f"A batch of {batch_size} episodes cannot run: ask for at least 1.")
    if not time_limit > 0:
        raise UserError(f"No episode ends within {time_limit} seconds: set a time limit above 0.")
    check_fit(open_checkpoint(checkpoint), env_config)
    check_seeds(checkpoint, seeds, demonstration_seeds)
    versions = software_versions()
    check_world(run_information(checkpoint), describe_env(env_config), versions, "The policy was trained")
    if videos_dir is not None:
        videos_dir.mkdir(parents=True, exist_ok=True)

    tries = Tries(seeds, batch_size, n_videos if videos_dir is not None else 0)
    workers = min(workers, tries.n_waiting)
    arguments = (checkpoint, env_config, videos_dir, batch_size)
    with (
        _rollout_progress(len(seeds), console) as advance,
        WorkerPool(_Rollouts, arguments, workers, preload=[__name__]) as pool,
    ):
        while not tries.is_complete:
            while tries.n_waiting and pool.has_idle_worker:
                try_ = tries.next_try()
                pool.submit(try_, time_limit * len(try_.seeds))
            for outcome in pool.wait():
                for episode in tries.note(outcome):
                    advance(episode.success)
                    if on_episode is not None:
                        on_episode(episode)

    return EvaluationRecord(
        episodes=_with_tasks(tries.episodes_with_videos(videos_dir), env_config),
        env=describe_env(env_config),
        render_profile=getattr(env_config, "render_profile", None),
        versions=versions,
        checkpoint=str(checkpoint),
        seconds=time.perf_counter() - start,
        workers=workers,
        batch_size=batch_size,
        crashes=tuple(tries.crashes),
    )


def _with_tasks(episodes: tuple[Episode, ...], env_config: EnvConfig) -> tuple[Episode, ...]:
    """Say of each episode which task it is, where its seed decides between several."""
    tasks = task_sentences(env_config)
    return tuple(replace(one, task=tasks[one.seed % len(tasks)]) if len(tasks) > 1 else one for one in episodes)


@contextmanager
def _rollout_progress(total: int, console: Console | None = None) -> Iterator[Callable[[bool], None]]:
    """Show one bar with the number of episodes, their rate, the running success, and the time left.

    Args:
        total: Number of episodes.
        console: Where to show it; standard output by default.

    Yields:
        A function to call with the success of each finished episode.
    """
    n_done = n_successes = 0
    with phase_progress(console or Console()) as progress:
        task = progress.add_task("rollouts", total=total, note="loading the policy")

        def advance(success: bool) -> None:
            nonlocal n_done, n_successes
            n_done += 1
            n_successes += success
            progress.update(task, advance=1, note=f"success {100 * n_successes / n_done:.0f} %")

        yield advance


class _Rollouts:
    """In a worker: a policy and environments, loaded once, that turn tries into episodes."""

    def __init__(self, checkpoint: Path, env_config: EnvConfig, videos_dir: Path | None, batch_size: int) -> None:
        register_third_party_plugins()
        # tqdm, which LeRobot's rollout uses, would make a semaphore that a killed worker leaves behind.
        tqdm.set_lock(threading.RLock())
        self._fps, self._videos_dir = env_config.fps, videos_dir
        self._env = _start_envs(env_config, batch_size)
        # From here to the end of `_run` the steps are those of lerobot.scripts.lerobot_eval.eval_main.
        torch.backends.cuda.matmul.allow_tf32 = True
        config = open_checkpoint(checkpoint)
        self._config = config
        self._policy: Any = get_policy_class(config.type).from_pretrained(checkpoint, config=config)
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

    def __call__(self, try_: Try) -> list[TriedEpisode]:
        set_seed(try_.stream)
        keeps = list(zip(try_.keep_success, try_.keep_failure, strict=True))
        self._env.recording = [success or failure for success, failure in keeps]
        # What a policy of ours samples from follows from each row's own episode.
        self._policy.episode_seeds = [seed or 0 for seed in try_.rows]
        self._run(list(try_.rows))
        keeps = [keep for keep, seed in zip(keeps, try_.rows, strict=True) if seed is not None]
        return [
            self._tried(running, keep_success if running.success else keep_failure)
            for running, (keep_success, keep_failure) in zip(self._env.finish(), keeps, strict=True)
        ]

    def _tried(self, running: RunningEpisode, keep_video: bool) -> TriedEpisode:
        if running.error is not None:
            return TriedEpisode(Episode.lost(running.seed, running.error), running.traceback)
        video = None
        if keep_video:
            assert self._videos_dir is not None
            name = f"{running.seed}_{'success' if running.success else 'failure'}.mp4"
            write_rollout_video(self._videos_dir / name, running.frames, self._fps)
            video = f"{self._videos_dir.name}/{name}"
        episode = Episode(
            running.seed, running.success, running.steps, running.total_reward, running.seconds, video=video
        )
        return TriedEpisode(episode)

    def _run(self, rows: list[int | None]) -> None:
        autocast = (
            torch.autocast(torch.device(str(self._config.device)).type) if self._config.use_amp else nullcontext()
        )
        with torch.no_grad(), autocast:
            rollout(
                env=self._env,
                policy=self._policy,
                env_preprocessor=self._env_preprocessor,
                env_postprocessor=self._env_postprocessor,
                preprocessor=self._preprocessor,
                postprocessor=self._postprocessor,
                seeds=rows,  # pyright: ignore[reportArgumentType] (handed on to our environment)
            )


def _start_envs(env_config: EnvConfig, n_envs: int) -> EpisodeBatch:
    """Make environments; the first one's first reset shows a missing renderer here, not as a lost episode."""
    try:
        tasks = [env for suite in env_config.create_envs(n_envs=n_envs).values() for env in suite.values()]
        if len(tasks) != 1:
            raise ValueError(
                f"The environment {env_config.type!r} opens {len(tasks)} tasks at once: evaluate one task at a time."
            )
        assert isinstance(tasks[0], gym.vector.SyncVectorEnv)
        tasks[0].envs[0].reset(seed=0)
    except ValueError as error:
        # Plugins know nothing of our UserError: theirs is a ValueError with the same kind of sentence.
        raise UserError(str(error)) from error
    return EpisodeBatch(tasks[0].envs)
