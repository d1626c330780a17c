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
from lerobot.utils.constants import ACTION
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.files import write_json
from pixio_robot.common.memory import PeakMemory
from pixio_robot.common.signals import requests_raise
from pixio_robot.common.still_dimensions import still_dimensions
from pixio_robot.common.versions import software_versions
from pixio_robot.demos import DemoStore, Sampling
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.engine.processes import Processes
from pixio_robot.engine.run_folder import CONFIG_FILE, begun_run_dir, discard_refused, run_to_resume
from pixio_robot.engine.run_log import RunLog
from pixio_robot.environments import describe_env, env_config_from
from pixio_robot.evaluation.checkpoints import check_fit, open_checkpoint
from pixio_robot.evaluation.open_loop import judge, save_pictures
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.evaluation.rollouts.evaluate import evaluate_policy
from pixio_robot.evaluation.worlds import check_world
from pixio_robot.reports.page import write_report
from pixio_robot.training.config import PolicyJob
from pixio_robot.training.data.batches import TrainingBatches, Windows, window_starts
from pixio_robot.training.data.feature_cache import FeatureCache
from pixio_robot.training.data.opening import encoder_features, open_demonstrations
from pixio_robot.training.held_out import foresee, held_out_episodes
from pixio_robot.training.pictures import save_run_pictures
from pixio_robot.training.policy.building import build_policy, policy_config_from
from pixio_robot.training.policy.objective import MODEL_FOLDER
from pixio_robot.training.policy.selection import best_step
from pixio_robot.training.policy.starting_point import load_starting_point
from pixio_robot.training.trainer import PolicyTraining, join_training_processes, train

RUNS = "train_policy"
"""Folder of the runs, under the job's `output_root`."""
_REPORT = "report.html"


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
        self.measured = job.evaluation.chosen_checkpoint(job.trainer)
        self.env_config = env_config_from(job.env)
        self.simulated = job.evaluation.episodes > 0 or job.demos.source == "scripted"
        self.used_episodes = job.demos.episodes if job.demos.source == "scripted" else None
        self.held_out: list[int] = []

    def whole_way(self, memory: PeakMemory) -> EvaluationRecord | None:
        """Go it."""
        seed_everything(self.job.seed)
        if self.processes.main:
            write_json(self.run_dir / "environment.json", software_versions())
        if self.simulated:
            _check_encoder(self.job.encoder, self.env_config)
        with self.log.phase("demonstrations", "Demonstrations"), self.processes.one_after_another():
            store = open_demonstrations(self.job.demos, self.env_config, Path(self.job.output_root), self.console)
        checkpoint = self.trained(store)
        record = None
        if self.processes.main:
            record = self.evaluated(checkpoint, store)
            if self.held_out:
                self.foreseen(checkpoint, store)
            with self.log.phase("report", "Report"):
                save_run_pictures(store, self.job.encoder, self.run_dir / "pictures")
            self.log.write("job", event="peak memory", mebibytes=memory.peak_bytes >> 20)
            _print_summary(
                record,
                self.log,
                memory,
                write_report(self.run_dir, record and record.as_json()),
                checkpoint,
                self.console,
            )
        return self.processes.share(record)

    def trained(self, store: DemoStore) -> Path:
        """Train, and return the `pretrained_model` folder of the checkpoint that is to be measured.

        What it holds in memory ends with it: the rollout workers load their own, and the peak of memory is there.
        """
        job = self.job
        setup = self.setup(store)
        with self.log.phase("training", "Training"):
            last = train(setup, job.trainer, self.run_dir, self.log, seed=job.seed, processes=self.processes)
        step = best_step(self.log) if self.measured == "best" else None
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
            check_world(recorded, self.env_config, software_versions(), "The demonstrations were recorded")
        self.say_unused(config, store)
        windows = Windows.of(config)
        sampling = self.without_held_out(store)
        window_starts(store, self.used_episodes, windows, sampling)
        policy, processors = build_policy(config, store, self.used_episodes)
        if job.start_from is not None:
            load_starting_point(policy, Path(job.start_from))
            console.print(f"starting from {job.start_from}", highlight=False, soft_wrap=True)
        encoder = policy.get_submodule("encoder")
        assert isinstance(encoder, VisionEncoder)
        self.say_sizes(policy, encoder)
        images = list(config.image_features)
        patches = getattr(policy, "reads_patches", True)
        cache = self.features(store, encoder, images, patches) if self.caches else None
        information = {
            # What the policy has seen: where it is evaluated may be drawn in another way, which then warns.
            "env": store.attributes.get("env") or (describe_env(self.env_config) if self.simulated else {}),
            "versions": software_versions(),
            "demonstrations": str(store.path),
            "names": store.names,
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
        self.reads = batches, windows

        def evaluate(checkpoint: Path) -> EvaluationRecord:
            return evaluate_policy(
                checkpoint,
                self.env_config,
                job.evaluation.seeds_during_training(),
                workers=job.evaluation.workers,
                demonstration_seeds=information["demonstration_seeds"],
                console=Console(quiet=True),  # the bar of the training is on the terminal
            )

        return PolicyTraining(policy, processors, batches, information, evaluate)

    def say_sizes(self, policy: torch.nn.Module, encoder: VisionEncoder) -> None:
        """Say what is trained, and how checkpoints keep the encoder's weights."""
        trainable = sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)
        total = sum(parameter.numel() for parameter in policy.parameters())
        name = self.job.policy["type"]
        self.console.print(f"{name} on {self.job.encoder.name}: {trainable:,} of {total:,} parameters trainable")
        reference = encoder.reference()
        kept = f"named in checkpoints by their hash {reference.hash}" if reference else "kept in every checkpoint"
        self.console.print(f"encoder weights ({self.job.encoder.weights}) are {kept}", highlight=False, soft_wrap=True)
        for key, feature in policy.config.image_features.items():  # type: ignore[union-attr]
            given = (int(feature.shape[-2]), int(feature.shape[-1]))
            (height, width), seen = encoder.preprocess.resized(*given), encoder.preprocess.seen(*given)
            if seen != given:
                filled = "" if seen == (height, width) else f" and filled up to {seen[0]}×{seen[1]}"
                self.console.print(
                    f"{key}: frames of {given[0]}×{given[1]} px are resized to {height}×{width}{filled}, their aspect "
                    f"kept, in training and on the robot (encoder.image_size={encoder.config.image_size})",
                    highlight=False,
                    soft_wrap=True,
                )
        self.log.write("policy", event="built", trainable_parameters=trainable, parameters=total)

    def say_unused(self, config: PreTrainedConfig, store: DemoStore) -> None:
        """Say which features the policy does not read, and which numbers of the demonstrations stand still."""
        unread = sorted(store.features.keys() - {*(config.input_features or ()), *(config.output_features or ())})
        if unread:
            self.console.print(f"not read by the policy: {', '.join(unread)}", highlight=False, soft_wrap=True)
        for key, still in still_dimensions(store.statistics(self.used_episodes)).items():
            names = store.names.get(key, [])
            named = ", ".join(names[one] if one < len(names) else str(one) for one in still)
            self.console.print(
                f"{key}: {named} stands still in the demonstrations; its normalisation has a floor", soft_wrap=True
            )

    def features(self, store: DemoStore, encoder: VisionEncoder, images: list[str], patches: bool) -> FeatureCache:
        """Encode each frame once."""
        root, copies = Path(self.job.output_root), self.job.trainer.augmented_copies
        with self.log.phase("features", "Encoder features"), self.processes.one_after_another():
            return encoder_features(store, encoder, images, root, self.used_episodes, copies, self.console, patches)

    def stands_for(self, store: DemoStore, config: PreTrainedConfig) -> bool:
        """Tell whether the environment is the demonstrations' own, or fits them; else there is nothing to roll out in.

        Raises:
            UserError: It is meant to be, and does not fit.
        """
        try:
            check_fit(config, self.env_config)
        except UserError:
            if self.job.demos.source == "scripted" or store.attributes.get("env"):
                raise
            self.console.print(
                f"no simulation stands for {Path(store.path).name} ({self.env_config.type} has other cameras, state or "
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

    def foreseen(self, checkpoint: Path, store: DemoStore) -> None:
        """Judge the policy on the episodes that it was not trained on."""
        with self.log.phase("held_out", "Held-out episodes"):
            batches, windows = self.reads
            found = foresee(checkpoint, store, batches, windows, self.held_out)
            names = store.names.get(ACTION) or [str(one) for one in range(store.features[ACTION].shape[0])]
            executed = int(getattr(open_checkpoint(checkpoint), "n_action_steps", 1))
            record = judge(found, names, np.asarray(store.statistics()[ACTION]["std"]), executed)
            record.save(self.run_dir / "held_out.json")
            save_pictures(found, record, executed, self.run_dir / "pictures")
        self.log.write("held_out", event="judged", relative=record.relative)
        self.console.print(record.summary(), highlight=False, soft_wrap=True)

    def evaluated(self, checkpoint: Path, store: DemoStore) -> EvaluationRecord | None:
        """Roll the policy out; None where no episodes are asked for."""
        evaluation = self.job.evaluation
        if not evaluation.episodes or not self.simulated:
            return None
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


def _check_encoder(config: EncoderConfig, env_config: EnvConfig) -> None:
    """Build the encoder once before anything slow, so that a wrong name, file or image size costs seconds."""
    sizes = [feature.shape[:2] for feature in env_config.features.values() if feature.type is FeatureType.VISUAL]
    encoder = VisionEncoder(config, frame_size=next(iter(sizes), None))
    for size in sizes:
        encoder.grid(*size)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _print_summary(
    record: EvaluationRecord | None, log: RunLog, memory: PeakMemory, report: Path, checkpoint: Path, console: Console
) -> None:
    console.rule("[bold]Result", align="left", style="dim")
    summary = record.summary() if record is not None else "trained; not rolled out"
    console.print(f"[bold green]{summary}", highlight=False)
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in log.phase_seconds.items())
    console.print(f"time       {times}; {sum(log.phase_seconds.values()) / 60:.1f} min together", highlight=False)
    console.print(f"memory     {memory.peak_bytes / 2**30:.1f} GiB at the peak, all processes", highlight=False)
    console.print(f"checkpoint {checkpoint}", highlight=False, soft_wrap=True)
    console.print(f"report     {report}", highlight=False, soft_wrap=True)
