"""Settings of a pretraining run and what follows from them."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.images.augment import Photometric, Range

Precision = Literal["float32", "bfloat16", "float16"]
OptimizerName = Literal["adamw", "muon"]
Distribution = Literal["auto", "none", "ddp", "fsdp"]

CHANGEABLE = frozenset(
    (
        *("steps", "epochs", "accumulation", "precision", "distribution", "activation_checkpointing", "compile_blocks"),
        *("device", "checkpoint_minutes", "keep_checkpoints", "keep_checkpoints_every", "result_dtype"),
    )
)
"""Settings that may change in the middle of a run: how far and how fast it goes."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of a run; exactly one of `steps` and `epochs`, and of `lr` and `base_lr`, is given.

    The recipe is arXiv 2512.15715's, §3 (masks, loss) and the appendix' table of hyper-parameters.

    Args:
        variant: timm name of the encoder.
        image_size: Side of the crops in pixels.
        mask_ratio: Fraction of blocks masked.
        mask_block: Side of a mask block in patches.
        batch_size: Images per optimiser step.
        lanes: Parts of a batch that are read apart from each other, each by one process; a run can continue on any
            number of processes that divides it. Only sources that are streams need more than one.
        accumulation: Parts that each process splits its share of a batch into; on a CPU parts of 32 to 128 images
            are fastest.
        start_from: Weights file or folder that the encoder starts from, of the variant, for instance official ones or
            those in this package; None draws initial weights.
        steps: Optimiser steps.
        epochs: Passes over the images.
        lr: Peak learning rate.
        base_lr: Peak learning rate per 256 images of the batch.
        warmup: Fraction of the steps over which the rate rises linearly; it then falls as a cosine to zero.
        optimizer: `adamw`, the paper's, or `muon` on the matrices of the blocks and AdamW on the rest; Muon learns
            more from each image, which decides what short runs come to, and is not sharded.
        weight_decay: Decoupled, on matrices and embeddings, not on vectors.
        drop_path: Stochastic depth of the encoder's last block; it rises linearly from 0 at the first, as in timm.
        crop_scale: Area of crops as a fraction of the image.
        crop_ratio: Width / height of crops.
        photometric: Light and colour changes, or None (the paper's recipe).
        precision: Type of the matrix products, Muon's own among them; bfloat16 is 1.8 times as fast on CPUs that have it
            in hardware (`avx512_bf16` or `amx_bf16` in /proc/cpuinfo) and far slower on those that have not. float16 is
            for GPUs without bfloat16: the loss is scaled, and steps whose gradients overflow are left out.
        distribution: How several processes share the work (`torchrun`, `accelerate launch`): `ddp` copies the model to
            each, `fsdp` (FSDP2) shares it out, `auto` is `ddp` for several processes and `none` for one.
        activation_checkpointing: Keep only the input of every block and compute the rest again for the gradients.
        compile_blocks: Compile transformer blocks with `torch.compile`, where the machine has a compiler.
        device: torch device.
        seed: Seed of weights, order, crops, masks and stochastic depth.
        checkpoint_minutes: Time between checkpoints, each with a picture and the curve.
        keep_checkpoints: How many of the newest checkpoints are kept.
        keep_checkpoints_every: Checkpoints of multiples of so many steps are kept, too.
        result_dtype: Type of the weights in the result files; checkpoints are float32.
    """

    variant: str
    image_size: int = 128
    mask_ratio: float = 0.75
    mask_block: int = 2
    batch_size: int = 256
    lanes: int = 1
    accumulation: int = 8
    start_from: str | None = None
    steps: int | None = None
    epochs: float | None = None
    lr: float | None = None
    base_lr: float | None = None
    warmup: float = 0.05
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.05
    drop_path: float = 0.0
    crop_scale: Range = (0.2, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    photometric: Photometric | None = None
    precision: Precision = "float32"
    distribution: Distribution = "auto"
    activation_checkpointing: bool = False
    compile_blocks: bool = False
    device: str = "cpu"
    seed: int = 0
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2
    keep_checkpoints_every: int | None = None
    result_dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        """Refuse what cannot run.

        Raises:
            UserError: Settings contradict each other.
        """
        for one, other in (("steps", "epochs"), ("lr", "base_lr")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise UserError(f"Give exactly one of {one} and {other}, the other as null.")
        choices_of = {"precision": Precision, "distribution": Distribution, "optimizer": OptimizerName}
        for name, choices in ((name, get_args(kind)) for name, kind in choices_of.items()):
            if getattr(self, name) not in choices:
                raise UserError(f"Unknown {name} {getattr(self, name)!r}. {nearest_name(getattr(self, name), choices)}")
        if self.batch_size % self.accumulation:
            raise UserError(f"A batch of {self.batch_size} cannot be split into {self.accumulation} equal parts.")
        if self.lanes < 1 or self.batch_size % self.lanes:
            raise UserError(f"A batch of {self.batch_size} cannot have {self.lanes} equal lanes: choose a divisor.")

    def total_steps(self, images: int | None) -> int:
        """Optimiser steps of the run over that many images.

        Raises:
            UserError: Epochs are asked for, but the number of images is not known.
        """
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        if images is None:
            raise UserError(
                "A stream has no known number of images: give pretraining.steps and pretraining.epochs=null."
            )
        return max(1, round(self.epochs * images / self.batch_size))

    def check_shared_by(self, processes: int) -> None:
        """Refuse a number of processes that cannot share a batch out equally.

        Raises:
            UserError: Says which batches they can.
        """
        if self.batch_size % (processes * self.accumulation):
            raise UserError(
                f"A batch of {self.batch_size} cannot be shared by {processes} processes in {self.accumulation} equal parts "
                "each: choose a batch_size that is a multiple of both together."
            )

    @property
    def peak_lr(self) -> float:
        """The highest learning rate: `lr`, or `base_lr` for every 256 images of the batch."""
        return self.lr if self.lr is not None else (self.base_lr or 0.0) * self.batch_size / 256

    def learning_rate(self, step: int, total: int) -> float:
        """Linear warm-up, then a cosine down to zero."""
        peak = self.peak_lr
        warmup = round(self.warmup * total)
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run must share with the interrupted one to have the same losses."""
        return {key: value for key, value in asdict(self).items() if key not in CHANGEABLE}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Settings of masked-autoencoder pretraining.

    Args:
        decoder_dim: Decoder width.
        decoder_depth: Decoder blocks.
        decoder_heads: Decoder attention heads.
        freeze_encoder: Train the decoder alone, on the encoder of `start_from` as it is: for reconstructions by an
            encoder that was distilled, and scores of images from it.
    """

    decoder_dim: int = 128
    decoder_depth: int = 8
    decoder_heads: int = 4
    freeze_encoder: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot run.

        Raises:
            UserError: Settings contradict each other.
        """
        super().__post_init__()
        if self.freeze_encoder and self.start_from is None:
            raise UserError("freeze_encoder keeps an encoder as it is: give the weights of one as start_from.")


def pretrain_config(values: dict[str, Any]) -> PretrainConfig:
    """Build settings of pretraining from plain values; see `config_from`."""
    return config_from(PretrainConfig, values)


def config_from[C: TrainingConfig](kind: type[C], values: dict[str, Any]) -> C:
    """Build settings from plain values, as a YAML file holds them.

    Raises:
        UserError: A name is unknown or settings contradict each other.
    """
    settings = _named(kind, values)
    if settings.get("photometric") is not None:
        settings["photometric"] = Photometric(**_named(Photometric, settings["photometric"]))
    return kind(**settings)


def _named(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(kind)]
    for name in values:
        if name not in known:
            raise UserError(f"Unknown setting {name!r}. {nearest_name(name, known)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
