"""What a run of train_policy can be told, apart from encoder, policy and environment."""

from dataclasses import dataclass


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
    log_every: int = 20
    """Steps between log lines; the loss is averaged over them."""
    cache_features: bool = True
    """Encode each frame once before training; only a frozen encoder can."""
    augmented_copies: int = 0
    """Copies of each frame in other light and slightly shifted that are cached beside the frame itself."""
    encoder_learning_rate: float | None = None
    """Peak for the encoder's last layer; None is a tenth of learning_rate for `finetune`, all of it for `lora`."""
    encoder_layer_decay: float = 0.75
    """Share of the next layer's learning rate with which each layer of the encoder learns."""
    encoder_frozen_steps: int = 0
    """First steps during which an encoder that trains is held frozen, until the policy makes sense of it."""


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


@dataclass(frozen=True)
class EvaluationConfig:
    """How the policy is measured."""

    episodes: int = 50
    first_seed: int = 100000
    workers: int = 2
    videos: int = 6
