"""The main job: demonstrations, cached features, training, rollouts and report, in one run folder."""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PreTrainedConfig
from lerobot.envs import EnvConfig
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.memory import PeakMemory
from pixio_robot.common.signals import requests_raise
from pixio_robot.common.storage.files import write_json
from pixio_robot.common.versions import software_versions
from pixio_robot.common.worlds import check_world
from pixio_robot.demos import DemoStore, Sampling
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.engine.processes import Processes
from pixio_robot.engine.run_folder import CONFIG_FILE, begun_run_dir, discard_refused, run_to_resume
from pixio_robot.engine.run_log import RunLog
from pixio_robot.environments import describe_env, env_config_from, env_config_meant
from pixio_robot.evaluation.checkpoints import MODEL_FOLDER, check_fit
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.evaluation.rollouts.evaluate import evaluate_policy
from pixio_robot.reports.page import write_report
from pixio_robot.training.announcements import say_result, say_sizes, say_start, say_unused
from pixio_robot.training.config import PolicyJob
from pixio_robot.training.data.batches import TrainingBatches, Windows, window_starts
from pixio_robot.training.data.feature_cache import FeatureCache
from pixio_robot.training.data.opening import encoder_features, open_demonstrations
from pixio_robot.training.held_out import HeldOut, held_out_episodes
from pixio_robot.training.pictures import save_run_pictures
from pixio_robot.training.policy.building import build_policy, policy_config_from
from pixio_robot.training.policy.selection import best_step
from pixio_robot.training.policy.starting_point import load_starting_point
from pixio_robot.training.trainer import PolicyTraining, join_training_processes, train

RUNS = "train_policy"
"""Folder of the runs, under the job's `output_root`."""
_REPORT = "report.html"
_LOOKS = 10  # at held-out episodes during a training


@requests_raise()
def run_policy_job(
    job: PolicyJob,
    resume: str | None = None,
    console: Console | None = None,
    *,
    run: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> EvaluationRecord | None:
    """Run the whole way, from demonstrations to a report.

    Launched as several processes, all train; the main one alone writes, prints and evaluates.

    Args:
        job: The run; when resuming, the run folder's own settings count.
        resume: See `run_to_resume`.
        console: Where progress is shown.
        run: The user's name for the run folder; None takes the time.
        given: When resuming, the settings that were given beside it, by dotted names.

    Returns:
        The evaluation, which also stands in the run folder; None where the job asks for no episodes.

    Raises:
        UserError: Anything the user can mend.
    """
    runs = Path(job.output_root) / RUNS
    resumed = run_to_resume(runs, run, resume, _REPORT)
    changes: list[str] = []
    if resumed is not None:
        job, changes = PolicyJob.load(resumed / CONFIG_FILE).changed(given or {}, resumed)
    processes = join_training_processes(job.trainer.precision)
    console = (console or Console()) if processes.main else Console(quiet=True)
    run_dir = processes.share(begun_run_dir(runs, run, resume, resumed) if processes.main else runs)
    if processes.main and (resumed is None or changes):
        job.save(run_dir / CONFIG_FILE)
    said = "" if resumed is None else ", continued" + (f" with {', '.join(changes)}" if changes else "")
    console.print(f"run folder {run_dir}{said}", highlight=False, soft_wrap=True)
    try:
        with (
            PeakMemory() as memory,
            RunLog(run_dir, console, writes=processes.main, wandb_project=job.trainer.wandb) as log,
        ):
            return _Run(job, run_dir, console, log, processes).whole_way(memory)
    except UserError:
        if resumed is None and processes.main:
            discard_refused(run_dir)
        raise
    except KeyboardInterrupt:
        console.print(f"[yellow]stopped; continue with resume={run_dir}", soft_wrap=True)
        raise


class _Run:
    """One run of the main job, phase after phase."""

    def __init__(self, job: PolicyJob, run_dir: Path, console: Console, log: RunLog, processes: Processes) -> None:
        self.job, self.run_dir, self.console, self.log, self.processes = job, run_dir, console, log, processes
        self.caches = job.caches_features
        self.trainer = job.trainer
        is_recorded = job.demos.source != "scripted" and "type" not in job.env
        self.env_config = None if is_recorded else env_config_from(job.env)
        self.simulated = job.evaluation.episodes > 0 or job.demos.source == "scripted"
        self.used_episodes = job.demos.episodes if job.demos.source == "scripted" else None
        self.held_out: list[int] = []
        self.judge: HeldOut | None = None

    def whole_way(self, memory: PeakMemory) -> EvaluationRecord | None:
        """Go it."""
        seed_everything(self.job.seed)
        if self.processes.main:
            write_json(self.run_dir / "environment.json", software_versions())
        if self.simulated:
            _check_encoder(self.job.encoder, self.env_config)
        with self.log.phase("demonstrations", "Demonstrations"), self.processes.one_after_another():
            store = open_demonstrations(self.job.demos, self.env_config, Path(self.job.output_root), self.console)
        if self.simulated and self.env_config is None:
            self.env_config = self.recorded_in(store)
        checkpoint = self.trained(store)
        record = None
        if self.processes.main:
            record = self.evaluated(checkpoint, store)
            summaries = [record.summary()] if record is not None else []
            if self.judge is not None:
                with self.log.phase("held_out", "Held-out episodes"):
                    verdict = self.judge.judge(checkpoint, self.run_dir)
                self.log.write("held_out", event="judged", relative=verdict.relative)
                summaries.append(verdict.summary())
            with self.log.phase("report", "Report"):
                save_run_pictures(store, self.job.encoder, self.preprocess, self.run_dir / "pictures")
            self.log.write("job", event="peak memory", mebibytes=memory.peak_bytes >> 20)
            report = write_report(self.run_dir, record and record.as_json())
            said = "\n".join(summaries) or "trained; not measured"
            say_result(said, self.log, memory, report, checkpoint, rolled_out=record is not None)
        return self.processes.share(record)

    def recorded_in(self, store: DemoStore) -> EnvConfig | None:
        """Return the simulation that demonstrations come from, with the fields that the job changes; None where there is none.

        Raises:
            UserError: The job changes fields of an environment that is not known.
        """
        noted = store.attributes.get("env")
        if not noted and not self.job.env:
            return None
        config = env_config_meant(self.job.env, noted, str(store.path))
        task = describe_env(config).get("task")
        if task is not None and "task" not in {**(noted or {}), **self.job.env}:  # stores of several tasks, joined
            return None
        named = config.type if task is None else f"{config.type}, task {task}"
        self.console.print(f"recorded in {named}: the policy is measured there", highlight=False, soft_wrap=True)
        return config

    def described_env(self) -> dict[str, Any]:
        """Describe the simulation in which the policy is measured; nothing where there is none."""
        return {} if self.env_config is None or not self.simulated else describe_env(self.env_config)

    def trained(self, store: DemoStore) -> Path:
        """Train, and return the `pretrained_model` folder of the checkpoint that is to be measured.

        What it holds in memory ends with it: the rollout workers load their own, and the peak of memory is there.
        """
        job = self.job
        setup = self.setup(store)
        with self.log.phase("training", "Training"):
            last = train(setup, self.trainer, self.run_dir, self.log, seed=job.seed, processes=self.processes)
        wanted = job.evaluation.chosen_checkpoint(self.trainer)
        step = best_step(self.log) if wanted == "best" else None
        return last if step is None else last.parents[1] / f"{step:06d}" / MODEL_FOLDER

    def setup(self, store: DemoStore) -> PolicyTraining:
        """Build policy and batches; what does not fit is refused before anything slow."""
        job, console = self.job, self.console
        seed_everything(job.seed)
        config: Any = policy_config_from(job.policy, job.encoder, store, self.used_episodes)
        config.device = self.processes.device.type
        if self.simulated:
            self.simulated = self.stands_for(store, config)
        if self.simulated:
            recorded = {"env": store.attributes.get("env"), "fps": store.fps, "versions": software_versions()}
            check_world(recorded, self.described_env(), software_versions(), "The demonstrations were recorded")
        say_unused(config, store, self.used_episodes, console)
        windows = Windows.of(config)
        sampling = self.without_held_out(store)
        window_starts(store, self.used_episodes, windows, sampling)
        policy, processors = build_policy(config, store, self.used_episodes)
        if job.start_from is not None:
            load_starting_point(policy, Path(job.start_from))
            say_start(Path(job.start_from), store, console)
        encoder = policy.get_submodule("encoder")
        assert isinstance(encoder, VisionEncoder)
        self.preprocess = encoder.preprocess
        say_sizes(job, policy, encoder, self.log)
        images = list(config.image_features)
        patches = getattr(policy, "reads_patches", True)
        cache = self.features(store, encoder, images, patches) if self.caches else None
        information = {
            # What the policy has seen: where it is evaluated may be drawn in another way, which then warns.
            "env": store.attributes.get("env") or self.described_env(),
            "versions": software_versions(),
            "demonstrations": str(store.path),
            "names": store.names,
            "fps": store.fps,
            "demonstration_seeds": _seeds(store),
        }
        batches = TrainingBatches(
            store,
            images,
            windows,
            job.trainer.batch_size,
            job.seed,
            cache,
            num_episodes=self.used_episodes,
            sampling=sampling,
        )
        if self.held_out:
            self.judge = HeldOut(store, self.held_out, batches, windows)
        if self.judge is not None and not self.simulated:
            self.trainer = replace(
                job.trainer, evaluate_every=job.trainer.evaluate_every or -(-job.trainer.steps // _LOOKS)
            )
            return PolicyTraining(policy, processors, batches, information, self.judge.look)

        def evaluate(checkpoint: Path) -> EvaluationRecord:
            assert self.env_config is not None
            return evaluate_policy(
                checkpoint,
                self.env_config,
                job.evaluation.seeds_during_training(),
                workers=job.evaluation.workers,
                demonstration_seeds=information["demonstration_seeds"],
                console=Console(quiet=True),  # the bar of the training is on the terminal
            )

        return PolicyTraining(policy, processors, batches, information, evaluate)

    def features(self, store: DemoStore, encoder: VisionEncoder, images: list[str], patches: bool) -> FeatureCache:
        """Encode each frame once."""
        with self.log.phase("features", "Encoder features"), self.processes.one_after_another():
            return encoder_features(store, encoder, images, self.used_episodes, self.job, self.console, patches)

    def stands_for(self, store: DemoStore, config: PreTrainedConfig) -> bool:
        """Tell whether the environment is the demonstrations' own, or fits them; else there is nothing to roll out in.

        Raises:
            UserError: It is meant to be, and does not fit.
        """
        name = Path(store.path).name
        if self.env_config is None:
            self.console.print(
                f"{name} does not say which simulation it comes from: the policy is judged on episodes that are held out "
                "(env=… names a simulation)",
                highlight=False,
                soft_wrap=True,
            )
            return False
        try:
            check_fit(config, self.env_config)
        except UserError:
            if self.job.demos.source == "scripted" or store.attributes.get("env"):
                raise
            self.console.print(
                f"no simulation stands for {name} ({self.env_config.type} has other cameras, state or "
                "actions): the policy is judged on episodes that are held out",
                highlight=False,
                soft_wrap=True,
            )
            return False
        return True

    def without_held_out(self, store: DemoStore) -> Sampling:
        """Choose the episodes that are held out, and leave them out of the training."""
        job, share = self.job, self.job.evaluation.held_out
        share = share if share is not None else 0.0 if self.simulated else 0.1
        self.held_out = held_out_episodes(store, share, self.used_episodes, job.seed)
        if not self.held_out:
            return job.demos.sampling
        numbers = ", ".join(map(str, self.held_out))
        self.console.print(f"held out of training: episodes {numbers}", highlight=False, soft_wrap=True)
        sampling = job.demos.sampling
        return replace(sampling, episode_weights={**sampling.episode_weights, **dict.fromkeys(self.held_out, 0.0)})

    def evaluated(self, checkpoint: Path, store: DemoStore) -> EvaluationRecord | None:
        """Roll the policy out; None where no episodes are asked for."""
        evaluation = self.job.evaluation
        if not evaluation.episodes or not self.simulated:
            return None
        assert self.env_config is not None
        with self.log.phase("evaluation", "Evaluation"):
            record = evaluate_policy(
                checkpoint,
                self.env_config,
                evaluation.seeds(),
                workers=evaluation.workers,
                videos_dir=self.run_dir / "evaluation" / "videos",
                n_videos=evaluation.videos,
                console=self.console,
                demonstration_seeds=_seeds(store),
            )
            record.save(self.run_dir / "evaluation" / "evaluation.json")
        return record


def _seeds(store: DemoStore) -> list[int]:
    return [int(seed) for seed in store.episode_seeds if seed >= 0]


def _check_encoder(config: EncoderConfig, env_config: EnvConfig | None) -> None:
    """Build the encoder once before anything slow, so that a wrong name, file or image size costs seconds."""
    features = [] if env_config is None else env_config.features.values()
    sizes = [feature.shape[:2] for feature in features if feature.type is FeatureType.VISUAL]
    encoder = VisionEncoder(config, frame_size=next(iter(sizes), None))
    for size in sizes:
        encoder.grid(*size)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
