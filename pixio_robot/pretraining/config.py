"""Settings of a pretraining run and what follows from them."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pixio_robot.errors import UserError, nearest_name
from pixio_robot.pretraining.augment import Photometric, Range


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of a run; exactly one of `steps` and `epochs`, and of `lr` and `base_lr`, is given.

    Args:
        variant: timm name of the encoder.
        image_size: Side of the crops in pixels.
        decoder_dim: Decoder width.
        decoder_depth: Decoder blocks.
        decoder_heads: Decoder attention heads.
        mask_ratio: Fraction of blocks masked.
        mask_block: Side of a mask block in patches.
        batch_size: Images per optimiser step.
        accumulation: Parts a batch is split into; on a CPU parts of 32 to 128 images are fastest.
        steps: Optimiser steps.
        epochs: Passes over the images.
        lr: Peak learning rate.
        base_lr: Peak learning rate per 256 images of the batch.
        warmup: Fraction of the steps over which the rate rises linearly; it then falls as a cosine to zero.
        weight_decay: AdamW's, on matrices and embeddings, not on vectors.
        drop_path: Stochastic depth of the encoder's last block.
        crop_scale: Area of crops as a fraction of the image.
        crop_ratio: Width / height of crops.
        photometric: Light and colour changes, or None (the paper's recipe).
        precision: Type of the matrix products; bfloat16 is 1.8 times as fast on CPUs that have it in hardware
            (`avx512_bf16` or `amx_bf16` in /proc/cpuinfo) and slower on those that have not.
        device: torch device.
        seed: Seed of weights, order, crops, masks and stochastic depth.
        checkpoint_minutes: Time between checkpoints, each with a picture and the curve.
        result_dtype: Type of the weights in the result files; checkpoints are float32.
    """

    variant: str
    image_size: int = 128
    decoder_dim: int = 128
    decoder_depth: int = 8
    decoder_heads: int = 4
    mask_ratio: float = 0.75
    mask_block: int = 2
    batch_size: int = 256
    accumulation: int = 8
    steps: int | None = None
    epochs: float | None = None
    lr: float | None = None
    base_lr: float | None = None
    warmup: float = 0.05
    weight_decay: float = 0.05
    drop_path: float = 0.0
    crop_scale: Range = (0.2, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    photometric: Photometric | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    seed: int = 0
    checkpoint_minutes: float = 5.0
    result_dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        """Refuse what cannot run.

        Raises:
            UserError: Settings contradict each other.
        """
        for one, other in (("steps", "epochs"), ("lr", "base_lr")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise UserError(f"Give exactly one of {one} and {other}, the other as null.")
        if self.batch_size % self.accumulation:
            raise UserError(f"A batch of {self.batch_size} cannot be split into {self.accumulation} equal parts.")

    def total_steps(self, images: int) -> int:
        """Optimiser steps of the run over that many images."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * images / self.batch_size))

    def learning_rate(self, step: int, total: int) -> float:
        """Linear warm-up, then a cosine down to zero."""
        peak = self.lr if self.lr is not None else (self.base_lr or 0.0) * self.batch_size / 256
        warmup = round(self.warmup * total)
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run must share with the interrupted one to have the same losses."""
        free = ("device", "checkpoint_minutes", "result_dtype")
        return {key: value for key, value in asdict(self).items() if key not in free}


def pretrain_config(values: dict[str, Any]) -> PretrainConfig:
    """Build settings from plain values, as a YAML file holds them.

    Raises:
        UserError: A name is unknown or settings contradict each other.
    """
    settings = _named(PretrainConfig, values)
    if settings.get("photometric") is not None:
        settings["photometric"] = Photometric(**_named(Photometric, settings["photometric"]))
    return PretrainConfig(**settings)


def _named(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(kind)]
    for name in values:
        if name not in known:
            raise UserError(f"Unknown pretraining setting {name!r}. {nearest_name(name, known)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
