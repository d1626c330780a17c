"""What a run of train_policy can be told, apart from encoder, policy and environment."""

from dataclasses import dataclass, field

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.demos import Sampling


@dataclass(frozen=True)
class TrainerConfig:
    """How long and how fast to train."""

    steps: int = 2500
    """Optimiser steps."""
    batch_size: int = 64
    """Windows per step."""
    learning_rate: float = 1e-3
    """Peak of the cosine schedule."""
    weight_decay: float = 1e-4
    """AdamW's decoupled decay."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    gradient_clip: float = 10.0
    """Largest gradient norm."""
    average_decay: float = 0.995
    """Decay of the moving average of weights that is evaluated and saved."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept, beside the best."""
    keep_checkpoints_every: int | None = None
    """Checkpoints of multiples of so many steps are kept, too."""
    log_every: int = 20
    """Steps between log lines; the loss is averaged over them."""
    cache_features: bool = True
    """Encode each frame once before training; only a frozen encoder can."""
    augmented_copies: int = 0
    """Copies of each frame in other light, with other surfaces and slightly shifted, cached beside the frame itself."""
    encoder_learning_rate: float | None = None
    """Peak for the encoder's last layer; None is a tenth of learning_rate for `finetune`, all of it for `lora`."""
    encoder_layer_decay: float = 0.75
    """Share of the next layer's learning rate with which each layer of the encoder learns."""
    encoder_frozen_steps: int = 0
    """First steps during which an encoder that trains is held frozen, until the policy makes sense of it."""
    evaluate_every: int = 0
    """Steps between evaluations during training, of which `checkpoints/best` is the best; 0 evaluates at the end only."""
    precision: str = "float32"
    """Of forward passes: `float32`, or `bfloat16` or `float16` (GPUs only) with weights kept in float32."""
    wandb: str | None = None
    """A wandb project that gets the curves, too."""


@dataclass(frozen=True)
class DemosConfig:
    """Where demonstrations come from."""

    source: str
    """`scripted` (collected from the environment's expert), `store` (a DemoStore) or `lerobot` (a v3 folder)."""
    path: str | None = None
    """The DemoStore; None names one under `<output_root>/demos`."""
    episodes: int = 100
    """Scripted: number of demonstrations; a store that has more is used up to there."""
    first_seed: int = 0
    """Scripted: seed of the first demonstration; the others follow."""
    workers: int = 2
    """Scripted: number of processes."""
    root: str | None = None
    """LeRobot: folder of the dataset."""
    repo_id: str | None = None
    """LeRobot: `<user>/<name>` of a dataset that LeRobot recorded or the hub has; see `lerobot_hub.dataset_folder`."""
    sample_by: str = "step"
    """What has equal shares of the training windows: `step`, `episode` or `task`."""
    task_weights: dict[str, float] = field(default_factory=dict)
    """How much more often tasks are seen, by their words; others have 1, and 0 leaves a task out."""
    episode_weights: dict[int, float] = field(default_factory=dict)
    """How much more often episodes are seen, by their numbers; others have 1."""
    pad_short_episodes: bool = False
    """Whether an episode may be shorter than the policy's action horizon; it is padded then, and refused otherwise."""

    @property
    def sampling(self) -> Sampling:
        """How often windows are drawn."""
        # demos.episode_weights.7=2 on the command line makes text of the number.
        episodes = {
            int(index) if str(index).isdigit() else index: value for index, value in self.episode_weights.items()
        }
        return Sampling(self.sample_by, self.task_weights, episodes, self.pad_short_episodes)


@dataclass(frozen=True)
class EvaluationConfig:
    """How the policy is measured."""

    episodes: int = 50
    """Rollouts of the final evaluation; 0 trains only, for data of a robot that no simulation here stands for."""
    first_seed: int = 100000
    """Its first seed; the others follow."""
    workers: int = 2
    """Number of processes that roll out."""
    videos: int = 6
    """Most videos that are kept."""
    checkpoint: str | None = None
    """Which one: `last` or `best`; None is `best` where `trainer.evaluate_every` keeps one, else `last`."""
    episodes_during_training: int = 10
    """Rollouts of each evaluation during training."""
    first_seed_during_training: int = 200000
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
            UserError: It is neither; or it is the best, and none is kept; or seeds of the evaluations meet.
        """
        if not self.episodes and trainer.evaluate_every:
            raise UserError(
                f"evaluation.episodes=0 trains without a simulation, but trainer.evaluate_every={trainer.evaluate_every} "
                f"wants one: set one or the other."
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
        if self.checkpoint not in ("last", "best"):
            raise UserError(
                f"Unknown evaluation.checkpoint {self.checkpoint!r}. {nearest_name(self.checkpoint, ('last', 'best'))}"
            )
        if self.checkpoint == "best" and not trainer.evaluate_every:
            raise UserError(
                "evaluation.checkpoint=best needs evaluations during training: set trainer.evaluate_every=500, for example."
            )
        return self.checkpoint
