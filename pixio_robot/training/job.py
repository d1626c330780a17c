"""The main job: demonstrations, cached features, training, rollouts and report, in one run folder."""

import dataclasses
import datetime
import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lerobot.configs import FeatureType
from lerobot.envs import EnvConfig
from rich.console import Console

from pixio_robot.demos import DemoStore
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.errors import UserError
from pixio_robot.evaluation.checkpoints import check_fit
from pixio_robot.evaluation.environments import describe_env, env_config_from
from pixio_robot.evaluation.record import EvaluationRecord, software_versions, write_json
from pixio_robot.evaluation.report import write_report
from pixio_robot.evaluation.rollouts import evaluate_policy
from pixio_robot.progress import phase_progress
from pixio_robot.training.batches import TrainingBatches
from pixio_robot.training.config import DemosConfig, EvaluationConfig, TrainerConfig
from pixio_robot.training.feature_cache import FeatureCache, cache_features
from pixio_robot.training.memory import PeakMemory
from pixio_robot.training.pictures import save_run_pictures
from pixio_robot.training.policies import build_policy, policy_config_from
from pixio_robot.training.run_log import RunLog
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


def run_policy_job(job: PolicyJob, resume: str | None = None, console: Console | None = None) -> EvaluationRecord:
    """Run the whole way, from demonstrations to a report.

    Args:
        job: The run; ignored when resuming, since a run folder carries its own.
        resume: A run folder to continue, `last` for the newest unfinished one, or None for a new run.
        console: Where progress is shown.

    Returns:
        The evaluation, which also stands in the run folder.

    Raises:
        UserError: Anything the user can mend.
    """
    console = console or Console()
    if resume is None:
        run_dir = _new_run_dir(Path(job.output_root))
        job.save(run_dir / "config.yaml")
    else:
        run_dir = _resumed_run_dir(resume, Path(job.output_root))
        job = PolicyJob.load(run_dir / "config.yaml")
    console.print(f"run folder {run_dir}", highlight=False)
    try:
        with PeakMemory() as memory:
            return _run(job, run_dir, console, memory)
    except KeyboardInterrupt:
        console.print(f"[yellow]stopped; continue with resume={run_dir}")
        raise


def _run(job: PolicyJob, run_dir: Path, console: Console, memory: PeakMemory) -> EvaluationRecord:
    uses_cache = job.encoder.mode == "frozen" and job.trainer.cache_features
    if job.trainer.augmented_copies and not uses_cache:
        raise UserError(
            "trainer.augmented_copies are cached copies: they need encoder.mode=frozen and trainer.cache_features=true; "
            "set trainer.augmented_copies=0 or change those."
        )
    seed_everything(job.seed)
    env_config = env_config_from(job.env)
    evaluation_seeds = range(job.evaluation.first_seed, job.evaluation.first_seed + job.evaluation.episodes)
    log = RunLog(run_dir, console)
    versions = software_versions()
    write_json(run_dir / "environment.json", versions)

    _check_encoder(job.encoder, env_config)
    with log.phase("demonstrations", "Demonstrations"):
        store = _demonstrations(job, console)
    seed_everything(job.seed)
    policy_config: Any = policy_config_from(job.policy, job.encoder, store)
    check_fit(policy_config, env_config)
    used_episodes = job.demos.episodes if job.demos.source == "scripted" else None
    policy, processors = build_policy(policy_config, store, used_episodes)
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
        with log.phase("features", "Encoder features"):
            cache = _features(job, encoder, store, image_keys, console)
    information = {
        "env": describe_env(env_config),
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
                len(policy_config.action_delta_indices),
                job.trainer.batch_size,
                job.seed,
                cache,
                num_episodes=used_episodes,
                n_obs_steps=policy_config.n_obs_steps,
                first_action=policy_config.action_delta_indices[0],
                drop_n_last_frames=getattr(policy_config, "drop_n_last_frames", 0),
            ),
            job.trainer,
            run_dir,
            log,
            information,
            on_step=lambda step, loss: progress.update(task, completed=step, note=f"loss {loss:.4f}"),
        )
    del policy, encoder, cache  # the rollout workers load their own; the peak of memory is there
    with log.phase("evaluation", "Evaluation"):
        record = evaluate_policy(
            checkpoint,
            env_config,
            evaluation_seeds,
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
    report = write_report(run_dir)
    _print_summary(record, log, memory, report, checkpoint, console)
    return record


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


def _demonstrations(job: PolicyJob, console: Console) -> DemoStore:
    demos_root = Path(job.output_root) / "demos"
    demos = job.demos
    if demos.source == "store":
        assert demos.path is not None
        return DemoStore.open(Path(demos.path))
    if demos.source == "lerobot":
        from pixio_robot.demos.lerobot_format import import_lerobot

        assert demos.root is not None
        path = Path(demos.path) if demos.path else demos_root / f"{Path(demos.root).name}.zarr"
        if path.exists():
            console.print(f"reusing {path}")
            return DemoStore.open(path)
        return import_lerobot(Path(demos.root), path)
    from pixio_robot.demos.collection import collect

    env_config = env_config_from(job.env)
    path = Path(demos.path) if demos.path else demos_root / f"{_env_name(describe_env(env_config))}.zarr"
    return collect(
        env_config, path, demos.episodes, first_seed=demos.first_seed, workers=demos.workers, console=console
    )


def _env_name(description: Mapping[str, Any]) -> str:
    """Name an environment for its demonstrations: the task and a hash of everything that shapes them."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]
    return f"{description['type']}_{description['task']}_{digest}"


def _features(
    job: PolicyJob, encoder: VisionEncoder, store: DemoStore, image_keys: list[str], console: Console
) -> FeatureCache:
    reused: list[int] = []
    with phase_progress(console) as progress:
        task = progress.add_task("encoding frames", total=None, note="")

        def show(done: int, total: int) -> None:
            if not reused:
                reused.extend((done, total))
            progress.update(task, completed=done, total=total)

        cache = cache_features(
            store,
            encoder,
            image_keys,
            Path(job.output_root) / "features",
            augmented_copies=job.trainer.augmented_copies,
            on_progress=show,
        )
    share = reused[0] / reused[1]
    console.print(f"cache {cache.num_bytes / 2**20:.0f} MiB, {100 * share:.0f} % of frames were there before")
    return cache


def _new_run_dir(output_root: Path) -> Path:
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = output_root / "train_policy"
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"_{number}" for number in range(2, 100))):
        try:
            (folder / f"{stamp}{suffix}").mkdir()
        except FileExistsError:
            continue
        return folder / f"{stamp}{suffix}"
    raise AssertionError("a hundred runs in one second")


def _resumed_run_dir(resume: str, output_root: Path) -> Path:
    if resume != "last":
        return Path(resume)
    runs = sorted(path.parent for path in (output_root / "train_policy").glob("*/config.yaml"))
    unfinished = [run for run in runs if not (run / "evaluation" / "evaluation.json").exists()]
    if not unfinished:
        raise UserError(f"No unfinished run in {output_root / 'train_policy'}: start one without resume=last.")
    return unfinished[-1]


def _print_summary(
    record: EvaluationRecord, log: RunLog, memory: PeakMemory, report: Path, checkpoint: Path, console: Console
) -> None:
    console.rule("[bold]Result", align="left", style="dim")
    console.print(f"[bold green]{record.summary()}", highlight=False)
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in log.phase_seconds.items())
    console.print(f"time       {times}; {sum(log.phase_seconds.values()) / 60:.1f} min together", highlight=False)
    console.print(f"memory     {memory.peak_bytes / 2**30:.1f} GiB at the peak, all processes", highlight=False)
    console.print(f"checkpoint {checkpoint}", highlight=False, soft_wrap=True)
    console.print(f"report     {report}", highlight=False, soft_wrap=True)
