"""What a run of train_policy can be told; read without torch."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml

from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Decay, NonNegative, Positive, Share, Switch, Text, Whole, plain, settings
from pixio_robot.common.storage.documents import read_yaml
from pixio_robot.common.storage.files import write_text
from pixio_robot.encoders.config import EncoderConfig
from pixio_robot.engine.run_folder import with_changes
from pixio_robot.environments import EnvDescription

if TYPE_CHECKING:
    from pixio_robot.demos import Sampling


CHANGEABLE = frozenset(
    (
        *(f"trainer.{name}" for name in ("steps", "log_every", "checkpoint_every", "precision", "wandb")),
        *(f"trainer.{name}" for name in ("keep_checkpoints", "keep_checkpoints_every")),
        *("demos.workers", "evaluation.episodes", "evaluation.first_seed", "evaluation.workers", "evaluation.videos"),
    )
)
"""Settings that may change in the middle of a run: how far and how fast it goes, and how it is measured at the end."""


_COPIES = 1


@settings
class TrainerConfig:
    """How long and how fast to train."""

    steps: Count = 2500
    """Optimiser steps."""
    batch_size: Count = 64
    """Windows per step."""
    learning_rate: Positive = 1e-3
    """Peak of the schedule."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up: `cosine` to zero, or `constant`."""
    weight_decay: NonNegative = 1e-4
    """AdamW's decoupled decay."""
    warmup_steps: Whole = 100
    """Steps of linear warm-up."""
    gradient_clip: Positive = 10.0
    """Largest gradient norm."""
    average_decay: Decay = 0.995
    """Decay of the moving average of weights that is evaluated and saved."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """How many of the newest checkpoints are kept, beside the best."""
    keep_checkpoints_every: Count | None = None
    """Checkpoints of multiples of so many steps are kept, too."""
    log_every: Count = 20
    """Steps between log lines; the loss is averaged over them."""
    cache_features: Switch = True
    """Encode each frame once before training; only a frozen encoder can."""
    feature_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the encoder when features are cached; `auto`: bfloat16 on a CPU that multiplies in it, in half the time."""
    augmented_copies: Whole | None = None
    """Copies of each frame in other light, with other surfaces and slightly shifted, cached beside the frame itself; null: one
    where features are cached."""
    encoder_learning_rate: Positive | None = None
    """Peak for the encoder's last layer; null: a tenth of learning_rate for `finetune`, all of it for `lora`."""
    encoder_layer_decay: Share = 0.75
    """Share of the next layer's learning rate with which each layer of the encoder learns."""
    encoder_frozen_steps: Whole = 0
    """First steps during which an encoder that trains is held frozen, until the policy makes sense of it."""
    evaluate_every: Whole = 0
    """Steps between evaluations during training, of which `checkpoints/best` is the best; 0: at the end only, and on held-out
    episodes ten times."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of forward passes: `float32`, or `bfloat16` or `float16` (GPUs only) with weights kept in float32."""
    wandb: Text | None = None
    """A wandb project that gets the curves, too (WANDB_MODE=offline keeps them in the run folder)."""


_DEMOS_OF_SOURCES = {
    "episodes": ("scripted",),
    "first_seed": ("scripted",),
    "workers": ("scripted",),
    "root": ("lerobot",),
    "repo_id": ("lerobot",),
}
_SOURCES_IN_WORDS = {"scripted": "collected", "store": "those of a store", "lerobot": "those of a LeRobotDataset"}


@settings
class DemosConfig:
    """Where demonstrations come from."""

    source: Literal["scripted", "store", "lerobot"]
    """`scripted` (collected from the environment's expert), `store` (a DemoStore) or `lerobot` (a v3 folder)."""
    path: Text | tuple[Text, ...] | None = None
    """The DemoStore; of source=store also several, [a.zarr,b.zarr], which are copied into one under `<output_root>/demos`; null
    names one there after the environment or the dataset."""
    episodes: Count = 100
    """Scripted: number of demonstrations, of all tasks together; a store that has more is used up to there."""
    first_seed: Whole = 0
    """Scripted: seed of the first demonstration; the others follow."""
    workers: Count = 2
    """Scripted: number of processes."""
    root: Text | None = None
    """LeRobot: folder of the dataset; with `repo_id`, where to download it to if it is not there."""
    repo_id: Text | None = None
    """LeRobot: `<user>/<name>`, looked for among LeRobot's own recordings, then on the hub."""
    sample_by: Literal["step", "episode", "task"] = "step"
    """What has equal shares of the training windows: `step`, `episode` or `task`."""
    task_weights: dict[str, NonNegative] = dataclasses.field(default_factory=dict)
    """How much more often tasks are seen, by their words: '+demos.task_weights={lift the cube: 3}'; 0 leaves one out."""
    episode_weights: dict[int, NonNegative] = dataclasses.field(default_factory=dict)
    """How much more often episodes are seen, by their numbers: +demos.episode_weights.7=2; others have 1."""
    pad_short_episodes: Switch = False
    """Whether an episode may be shorter than the policy's action horizon; it is padded then, and refused otherwise."""

    def __post_init__(self) -> None:
        """Check that there is something to open.

        Raises:
            UserError: Nothing says where the demonstrations are, or a setting is for another source of them.
        """
        for field in dataclasses.fields(self):
            sources = _DEMOS_OF_SOURCES.get(field.name, (self.source,))
            value = getattr(self, field.name)
            if self.source not in sources and value != field.default:
                raise UserError(
                    f"demos.{field.name}={value} has no effect where demonstrations are {_SOURCES_IN_WORDS[self.source]} "
                    f"(demos.source={self.source}): leave it out."
                )
        if self.source != "store" and isinstance(self.path, tuple):
            raise UserError(
                f"demos.path names {len(self.path)} stores, which goes with demos=store, not with demonstrations that are "
                f"{_SOURCES_IN_WORDS[self.source]}."
            )
        if self.source == "store" and not self.path:
            raise UserError("demos.path must be given: add demos.path=… (a DemoStore) to the command.")
        if self.source == "lerobot" and self.root is None and self.repo_id is None:
            raise UserError(
                "demos.root or demos.repo_id must be given: a folder, or <user>/<name> of a LeRobotDataset."
            )

    @property
    def sampling(self) -> "Sampling":
        """How often windows are drawn."""
        from pixio_robot.demos import Sampling

        return Sampling(self.sample_by, self.task_weights, self.episode_weights, self.pad_short_episodes)


@settings
class EvaluationConfig:
    """How the policy is measured."""

    episodes: Whole = 50
    """Rollouts of the final evaluation, of all tasks together; 0 trains only, for data of a robot that no simulation here
    stands for."""
    first_seed: Whole = 100000
    """Its first seed; the others follow."""
    workers: Count = 2
    """Number of processes that roll out."""
    videos: Whole = 6
    """Most videos that are kept."""
    checkpoint: Literal["last", "best"] | None = None
    """Which one: `last` or `best`; null is `best` where there are evaluations during training, else `last`."""
    episodes_during_training: Whole = 10
    """Rollouts of each evaluation during training."""
    held_out: Share | None = None
    """Share of the episodes, of every task, that are never trained on and foreseen at the end (`held_out.json`); null is 0.1
    where no simulation stands for the demonstrations, else 0."""
    first_seed_during_training: Whole = 200000
    """Their first seed: the best checkpoint is chosen on other episodes than it is then measured on."""

    def seeds(self) -> range:
        """Return the seeds of the final evaluation."""
        return range(self.first_seed, self.first_seed + self.episodes)

    def seeds_during_training(self) -> range:
        """Return the seeds of every evaluation during training."""
        return range(self.first_seed_during_training, self.first_seed_during_training + self.episodes_during_training)

    def chosen_checkpoint(self, trainer: TrainerConfig) -> str:
        """Return which checkpoint is measured, `last` or `best`.

        Raises:
            UserError: It is the best, and none is kept; or seeds of the evaluations meet.
        """
        if not self.episodes and self.held_out == 0 and trainer.evaluate_every:
            raise UserError(
                f"evaluation.episodes=0 and evaluation.held_out=0 measure nothing, but trainer.evaluate_every="
                f"{trainer.evaluate_every} is set: set one or the other."
            )
        if trainer.evaluate_every:
            shared = set(self.seeds()).intersection(self.seeds_during_training())
            if shared:
                raise UserError(
                    f"The evaluations during training and at the end share {len(shared)} seeds (the first is "
                    f"{min(shared)}): the best checkpoint would be chosen on its own test; set "
                    f"evaluation.first_seed_during_training={max(self.seeds()) + 1}."
                )
            if not self.episodes_during_training:
                raise UserError(
                    "evaluation.episodes_during_training=0 evaluates nothing: set trainer.evaluate_every=0."
                )
        if self.checkpoint is None:
            return "best" if trainer.evaluate_every else "last"
        if self.checkpoint == "best" and not trainer.evaluate_every:
            raise UserError(
                "evaluation.checkpoint=best needs evaluations during training: set trainer.evaluate_every=500, for example."
            )
        return self.checkpoint


@settings(kw_only=True)
class PolicyJob:
    """Everything that decides a run."""

    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """The encoder."""
    policy: dict[str, Any]
    """`type`, such as pixio_act, and any fields of that policy's config."""
    env: EnvDescription = dataclasses.field(default_factory=dict)
    """`type`, such as pixio_robosuite, and any fields of that environment's config; for demos of a store or LeRobotDataset by
    default what they were recorded in, of which env.NAME=… changes a field."""
    demos: DemosConfig
    """Where demonstrations come from."""
    trainer: TrainerConfig = dataclasses.field(default_factory=TrainerConfig)
    """How long and how fast to train."""
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    """How the policy is measured."""
    seed: Whole = 0
    """Seed of weights, of the order of windows, and of what is drawn while training."""
    output_root: Text = "outputs"
    """Folder of everything that is written: runs, demonstrations, cached features."""
    start_from: Text | None = None
    """A `pretrained_model` folder, ours or lerobot-train's, or a run of ours or `latest`: its policy, encoder and weights, with
    the fields of policy and encoder that the command line gives; normalisation is that of the demonstrations."""

    def __post_init__(self) -> None:
        """Check what settings demand of each other.

        Raises:
            UserError: See `EvaluationConfig.chosen_checkpoint`; or copies are to be cached, and nothing is.
        """
        self.evaluation.chosen_checkpoint(self.trainer)
        if self.trainer.augmented_copies and not self.caches_features:
            raise UserError(
                "trainer.augmented_copies are cached copies: they need encoder.mode=frozen and trainer.cache_features=true; "
                "set trainer.augmented_copies=0 or change those."
            )

    @property
    def caches_features(self) -> bool:
        """Whether frames are encoded once, before training."""
        return self.encoder.mode == "frozen" and self.trainer.cache_features

    @property
    def augmented_copies(self) -> int:
        """Copies of each frame that are cached beside it."""
        copies = self.trainer.augmented_copies
        return (_COPIES if self.caches_features else 0) if copies is None else copies

    def _values(self) -> dict[str, Any]:
        """Return what decides the run as plain values, without how it stands to earlier runs."""
        values = plain(self)
        return {field.name: values[field.name] for field in dataclasses.fields(PolicyJob)}

    def changed(self, given: Mapping[str, Any], run_dir: Path) -> "tuple[PolicyJob, list[str]]":
        """Return the job of a run folder with the settings that its continuation was given, and what changed.

        Raises:
            UserError: One of them cannot change in the middle of a run.
        """
        values, changes = with_changes(self._values(), given, CHANGEABLE, run_dir)
        return PolicyJob(**values), changes

    def save(self, path: Path) -> None:
        """Write the job as YAML."""
        write_text(path, yaml.safe_dump(self._values(), sort_keys=False))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a job's YAML.

        Raises:
            UserError: The file is missing, or its settings are not those of a job.
        """
        if not path.is_file():
            raise UserError(f"{path.parent} is no run folder of train_policy.py: it has no {path.name}.")
        values = read_yaml(path)
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise UserError(f"{path} holds no settings: start a new run.")
        return cls(**values)


@settings(kw_only=True)
class TrainPolicy(PolicyJob):
    """Settings of the job train_policy."""

    run: Text | None = None
    """Name of the run's folder under `<output_root>/train_policy`; null takes the time."""
    resume: Text | None = None
    """A run's folder or name, `last` or `latest` for the newest unfinished one, or `auto` with run=NAME: continued, or begun."""
