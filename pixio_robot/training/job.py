"""The main job: demonstrations, cached features, training, rollouts and report, in one run folder."""

import dataclasses
import random
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from lerobot.configs import FeatureType
from lerobot.envs import EnvConfig
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.files import write_json
from pixio_robot.common.memory import PeakMemory
from pixio_robot.common.progress import phase_progress
from pixio_robot.common.versions import software_versions
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.engine.run_folder import discard_refused, new_run_dir, resumed_run_dir
from pixio_robot.engine.run_log import RunLog
from pixio_robot.engine.stopping import StoppedError
from pixio_robot.environments import describe_env, env_config_from
from pixio_robot.evaluation.checkpoints import check_fit
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.evaluation.rollouts.evaluate import evaluate_policy
from pixio_robot.reports.page import write_report
from pixio_robot.training.config import DemosConfig, EvaluationConfig, TrainerConfig
from pixio_robot.training.data.batches import TrainingBatches, window_starts
from pixio_robot.training.data.opening import encoder_features, open_demonstrations
from pixio_robot.training.pictures import save_run_pictures
from pixio_robot.training.policy.building import build_policy, policy_config_from
from pixio_robot.training.policy.starting_point import load_starting_point
from pixio_robot.training.processes import main_first, open_accelerator, share
from pixio_robot.training.trainer import train


@dataclass(frozen=True)
class PolicyJob:
    """Everything that decides a run."""

    encoder: EncoderConfig
    policy: dict[str, Any]
    env: dict[str, Any]
    demos: DemosConfig
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    seed: int = 0
    output_root: str = "outputs"
    start_from: str | None = None
    """A `pretrained_model` folder whose weights the policy starts with; see `starting_point.described_by`."""

    def save(self, path: Path) -> None:
        """Write the job as YAML."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(dataclasses.asdict(self), sort_keys=False))

    @classmethod
    def load(cls, path: Path) -> "PolicyJob":
        """Read a job's YAML.

        Raises:
            UserError: The file is missing.
        """
        if not path.is_file():
            raise UserError(f"{path.parent} is no run folder of train_policy.py: it has no {path.name}.")
        fields = yaml.safe_load(path.read_text())
        return cls(
            encoder=EncoderConfig(**fields.pop("encoder")),
            demos=DemosConfig(**fields.pop("demos")),
            trainer=TrainerConfig(**fields.pop("trainer")),
            evaluation=EvaluationConfig(**fields.pop("evaluation")),
            **fields,
        )


def run_policy_job(
    job: PolicyJob, resume: str | None = None, console: Console | None = None
) -> EvaluationRecord | None:
    """Run the whole way, from demonstrations to a report.

    Launched as several processes, all train; the main one alone writes, prints and evaluates.

    Args:
        job: The run; ignored when resuming, since a run folder carries its own.
        resume: A run folder to continue, `last` for the newest unfinished one, or None for a new run.
        console: Where progress is shown.

    Returns:
        The evaluation, which also stands in the run folder; None where the job asks for no episodes.

    Raises:
        UserError: Anything the user can mend.
    """
    output_root = Path(job.output_root)
    if resume is not None:
        run_dir = resumed_run_dir(resume, output_root)
        job = PolicyJob.load(run_dir / "config.yaml")
    accelerator = open_accelerator(job.trainer.precision, weights_rest=job.encoder.mode != "frozen")
    console = (console or Console()) if accelerator.is_main_process else Console(quiet=True)
    if resume is None:
        run_dir = share(new_run_dir(output_root) if accelerator.is_main_process else output_root)
        if accelerator.is_main_process:
            job.save(run_dir / "config.yaml")
    console.print(f"run folder {run_dir}", highlight=False)
    writes, project = accelerator.is_main_process, job.trainer.wandb
    try:
        with PeakMemory() as memory, RunLog(run_dir, console, writes=writes, wandb_project=project) as log:
            return _run(job, run_dir, console, memory, log, accelerator)
    except UserError:
        if resume is None and accelerator.is_main_process:
            discard_refused(run_dir)
        raise
    except KeyboardInterrupt as stopped:
        console.print(f"[yellow]stopped; continue with resume={run_dir}")
        if isinstance(stopped, StoppedError) and stopped.request == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
        raise


def _run(
    job: PolicyJob, run_dir: Path, console: Console, memory: PeakMemory, log: RunLog, accelerator: Accelerator
) -> EvaluationRecord | None:
    uses_cache = job.encoder.mode == "frozen" and job.trainer.cache_features
    if job.trainer.augmented_copies and not uses_cache:
        raise UserError(
            "trainer.augmented_copies are cached copies: they need encoder.mode=frozen and trainer.cache_features=true; "
            "set trainer.augmented_copies=0 or change those."
        )
    measured = job.evaluation.chosen_checkpoint(job.trainer)
    seed_everything(job.seed)
    env_config = env_config_from(job.env)
    versions = software_versions()
    if accelerator.is_main_process:
        write_json(run_dir / "environment.json", versions)

    simulated = job.evaluation.episodes > 0 or job.demos.source == "scripted"
    if simulated:
        _check_encoder(job.encoder, env_config)
    output_root = Path(job.output_root)
    with log.phase("demonstrations", "Demonstrations"), main_first(accelerator):
        store = open_demonstrations(job.demos, env_config, output_root, console)
    seed_everything(job.seed)
    policy_config: Any = policy_config_from(job.policy, job.encoder, store)
    policy_config.device = accelerator.device.type
    if simulated:
        check_fit(policy_config, env_config)
    used_episodes = job.demos.episodes if job.demos.source == "scripted" else None
    window = len(policy_config.action_delta_indices), getattr(policy_config, "drop_n_last_frames", 0)
    window_starts(store, used_episodes, *window, job.demos.sampling)  # refuses what does not fit before anything slow
    policy, processors = build_policy(policy_config, store, used_episodes)
    if job.start_from is not None:
        load_starting_point(policy, Path(job.start_from))
        console.print(f"starting from {job.start_from}", highlight=False, soft_wrap=True)
    encoder = policy.get_submodule("encoder")
    assert isinstance(encoder, VisionEncoder)
    trainable = sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in policy.parameters())
    console.print(f"{policy_config.type} on {job.encoder.name}: {trainable:,} of {total:,} parameters trainable")
    reference = encoder.reference()
    kept = (
        f"named in checkpoints by their hash {reference.hash}" if reference is not None else "kept in every checkpoint"
    )
    console.print(f"encoder weights ({job.encoder.weights}) are {kept}", highlight=False, soft_wrap=True)
    log.write("policy", event="built", trainable_parameters=trainable, parameters=total)

    image_keys = list(policy_config.image_features)
    cache = None
    if uses_cache:
        with log.phase("features", "Encoder features"), main_first(accelerator):
            cache = encoder_features(
                store, encoder, image_keys, output_root, used_episodes, job.trainer.augmented_copies, console
            )
    information = {
        # What the policy has seen: where it is evaluated may be drawn in another way, which then warns.
        "env": store.attributes.get("env") or (describe_env(env_config) if simulated else {}),
        "versions": versions,
        "demonstrations": str(store.path),
        "demonstration_seeds": [int(seed) for seed in store.episode_seeds if seed >= 0],
    }
    with log.phase("training", "Training"), phase_progress(console) as progress:
        task = progress.add_task("training", total=job.trainer.steps, note="")
        checkpoint = train(
            policy,
            processors,
            TrainingBatches(
                store,
                image_keys,
                window[0],
                job.trainer.batch_size,
                job.seed,
                cache,
                num_episodes=used_episodes,
                n_obs_steps=policy_config.n_obs_steps,
                first_action=policy_config.action_delta_indices[0],
                drop_n_last_frames=window[1],
                sampling=job.demos.sampling,
            ),
            job.trainer,
            run_dir,
            log,
            information,
            on_step=lambda step, loss: progress.update(task, completed=step, note=f"loss {loss:.4f}"),
            evaluate=_evaluation_during_training(
                job, env_config, information, lambda note: progress.update(task, note=note)
            ),
            seed=job.seed,
            accelerator=accelerator,
        )
    accelerator.free_memory()
    del policy, encoder, cache  # the rollout workers load their own; the peak of memory is there
    record = None
    if accelerator.is_main_process:
        if measured == "best":
            best = run_dir / "checkpoints" / "best"
            checkpoint = best.with_name(best.readlink().name) / "pretrained_model"
        if job.evaluation.episodes:
            with log.phase("evaluation", "Evaluation"):
                record = evaluate_policy(
                    checkpoint,
                    env_config,
                    job.evaluation.seeds(),
                    workers=job.evaluation.workers,
                    videos_dir=run_dir / "evaluation" / "videos",
                    n_videos=job.evaluation.videos,
                    console=console,
                    demonstration_seeds=information["demonstration_seeds"],
                )
                record.save(run_dir / "evaluation" / "evaluation.json")
        with log.phase("report", "Report"):
            save_run_pictures(store, job.encoder, run_dir / "pictures")
        log.write("job", event="peak memory", mebibytes=memory.peak_bytes >> 20)
        _print_summary(record, log, memory, write_report(run_dir), checkpoint, console)
    return share(record)


def _evaluation_during_training(
    job: PolicyJob, env_config: EnvConfig, information: Mapping[str, Any], say: Callable[[str], None]
) -> Callable[[Path], EvaluationRecord]:
    """Return what evaluates a checkpoint during training, on other seeds than the final evaluation's."""
    seeds = job.evaluation.seeds_during_training()

    def evaluate(checkpoint: Path) -> EvaluationRecord:
        say("rollouts")
        return evaluate_policy(
            checkpoint,
            env_config,
            seeds,
            workers=job.evaluation.workers,
            on_episode=lambda episode: say(f"rollout of seed {episode.seed} is over"),
            demonstration_seeds=information["demonstration_seeds"],
            console=Console(quiet=True),  # the bar of the training is on the terminal
        )

    return evaluate


def _check_encoder(config: EncoderConfig, env_config: EnvConfig) -> None:
    """Build the encoder once before anything slow, so that a wrong name, file or image size costs seconds."""
    encoder = VisionEncoder(config)
    for feature in env_config.features.values():
        if feature.type is FeatureType.VISUAL:
            encoder.grid(*feature.shape[:2])


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _print_summary(
    record: EvaluationRecord | None, log: RunLog, memory: PeakMemory, report: Path, checkpoint: Path, console: Console
) -> None:
    console.rule("[bold]Result", align="left", style="dim")
    summary = record.summary() if record is not None else "trained; not rolled out (evaluation.episodes=0)"
    console.print(f"[bold green]{summary}", highlight=False)
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in log.phase_seconds.items())
    console.print(f"time       {times}; {sum(log.phase_seconds.values()) / 60:.1f} min together", highlight=False)
    console.print(f"memory     {memory.peak_bytes / 2**30:.1f} GiB at the peak, all processes", highlight=False)
    console.print(f"checkpoint {checkpoint}", highlight=False, soft_wrap=True)
    console.print(f"report     {report}", highlight=False, soft_wrap=True)
