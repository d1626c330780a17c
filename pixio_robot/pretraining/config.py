"""Settings of a pretraining run and what follows from them; read without torch."""

import dataclasses
import math
from typing import Any, Literal

from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Decay, NonNegative, Positive, Share, Switch, Text, Whole, settings
from pixio_robot.images.config import Filter, Photometric

Precision = Literal["float32", "bfloat16", "float16"]
OptimizerName = Literal["adamw", "muon"]
Distribution = Literal["auto", "none", "ddp", "fsdp"]

CHANGEABLE = frozenset(
    (
        *(
            "steps",
            "epochs",
            "batch_size",
            "accumulation",
            "precision",
            "distribution",
            "mesh",
            "activation_checkpointing",
        ),
        *(
            "compile_blocks",
            "device",
            "checkpoint_minutes",
            "keep_checkpoints",
            "keep_checkpoints_every",
            "result_dtype",
            "probe_every",
            "probe_images",
        ),
    )
)
"""Settings that may change in the middle of a run: how far and how fast it goes, and by how many images a step."""


@settings(kw_only=True)
class TrainingConfig:
    """Settings of a run; exactly one of `steps` and `epochs`, and of `lr` and `base_lr`, is given.

    The recipe is arXiv 2512.15715's, §3 (masks, loss) and the appendix' table of hyper-parameters.
    """

    variant: Text
    """timm name of the encoder that is trained; `encoder=…` gives it."""
    image_size: Count = 128
    """Side of the crops in pixels."""
    mask_ratio: Decay = 0.75
    """Fraction of blocks masked."""
    mask_block: Count = 2
    """Side of a mask block in patches; 2 covers as much of 128 px as the paper's 4 at 256 px, but short runs learn less with it
    than with 1."""
    batch_size: Count = 256
    """Images per optimiser step."""
    lanes: Count = 1
    """Parts of a batch that are read apart from each other, each by one process; a run can continue on any number of processes
    that divides it. Only sources that are streams need more than one."""
    accumulation: Count = 8
    """Parts that each process splits its share of a batch into; on a CPU parts of 32 to 128 images are fastest."""
    start_from: Text | None = None
    """Weights file or folder that the encoder starts from, of the variant, for instance official ones or those in this package;
    null draws initial weights."""
    steps: Count | None = None
    """Optimiser steps."""
    epochs: Positive | None = None
    """Passes over the images."""
    lr: Positive | None = None
    """Peak learning rate."""
    base_lr: Positive | None = None
    """Peak learning rate per 256 images of the batch."""
    warmup: Share = 0.05
    """Fraction of the steps over which the rate rises linearly; it then falls as a cosine to zero."""
    optimizer: OptimizerName = "adamw"
    """`adamw`, the paper's, or `muon` on the matrices of the blocks and AdamW on the rest; Muon learns more from each image,
    which decides what short runs come to, and is not sharded."""
    weight_decay: NonNegative = 0.05
    """Decoupled, on matrices and embeddings, not on vectors."""
    drop_path: Decay = 0.0
    """Stochastic depth of the encoder's last block; it rises linearly from 0 at the first, as in timm."""
    crop_scale: tuple[Share, Share] = (0.2, 1.0)
    """Area of crops as a fraction of the image."""
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Width / height of crops."""
    crop_filter: Filter = "bilinear"
    """How crops are resized, with antialiasing: `bicubic` is the official recipe's."""
    crops: Literal["auto", "cpu", "device"] = "auto"
    """Where crops are cut: `auto` on the device, and on a CPU one by one. Frames of a cache (`images.decode_once`, a folder,
    demonstrations) then lie in a GPU's memory where a third of it is enough, else they are sent along with every batch."""
    photometric: Photometric | None = None
    """Light and colour changes, or null (the paper's recipe)."""
    precision: Precision = "float32"
    """Type of the matrix products, Muon's own among them; bfloat16 is 1.8 times as fast on CPUs that have it in hardware
    (`avx512_bf16` or `amx_bf16` in /proc/cpuinfo) and far slower on those that have not. float16 is for GPUs without bfloat16:
    the loss is scaled, and steps whose gradients overflow are left out."""
    distribution: Distribution = "auto"
    """How several processes share the work (torchrun): `ddp` copies the model to each, `fsdp` (FSDP2) shares it out, `auto` is
    `ddp` for several processes and `none` for one."""
    mesh: tuple[Count, Count] | None = None
    """With `fsdp`: [groups, processes of a group]; each group holds the model once, so that blocks are gathered within a machine;
    null is one group of all."""
    activation_checkpointing: Switch = False
    """Keep only the input of every block and compute the rest again for the gradients."""
    residual: Literal["float32", "bfloat16"] = "float32"
    """Type of what transformer blocks add to, with precision=bfloat16; bfloat16 moves half as many bytes between them."""
    compile_blocks: Switch = False
    """Compile transformer blocks with `torch.compile`, where the machine has a compiler; worth half a minute of compiling for
    runs above a few minutes."""
    device: Text = "cpu"
    """torch device."""
    seed: Whole = 0
    """Seed of weights, order, crops, masks and stochastic depth."""
    checkpoint_minutes: NonNegative = 5.0
    """Time between checkpoints, each with a picture and the curve."""
    keep_checkpoints: Count = 2
    """How many of the newest checkpoints are kept."""
    keep_checkpoints_every: Count | None = None
    """Checkpoints of multiples of so many steps are kept, too."""
    result_dtype: Literal["float32", "float16"] = "float32"
    """Type of the weights in the result files; checkpoints are float32."""
    probe_every: Count | None = None
    """Steps from one measurement of the encoder so far to the next, by a linear probe and k-NN on `probe_images`; null measures
    nothing."""
    probe_images: Text | None = None
    """Labelled images for that, `train/<class>/…` and `test/<class>/…`; every time all of them are read again."""

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
        if self.residual == "bfloat16" and self.precision != "bfloat16":
            raise UserError(f"residual=bfloat16 goes with precision=bfloat16, not {self.precision}.")
        if self.mesh is not None and self.distribution != "fsdp":
            raise UserError(f"mesh={list(self.mesh)} goes with distribution=fsdp, not {self.distribution}.")
        if (self.probe_every is None) != (self.probe_images is None):
            raise UserError("probe_every and probe_images go together: give both, or neither.")
        if self.probe_every is not None and self.distribution == "fsdp":
            raise UserError(
                "probe_every measures on one process, which with distribution=fsdp has not all of the encoder: leave it out, and "
                "measure checkpoints with scripts/evaluate_encoder.py."
            )
        if self.batch_size % self.lanes:
            raise UserError(f"A batch of {self.batch_size} cannot have {self.lanes} equal lanes: choose a divisor.")
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UserError(f"{name} must be the least and the largest, above 0, got [{low}, {high}].")

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
        """Refuse a number of processes that cannot share a batch out equally, or that do not fill the mesh.

        Raises:
            UserError: Says which batches they can, or how many processes the mesh has.
        """
        if self.mesh is not None and math.prod(self.mesh) != processes:
            groups, shares = self.mesh
            raise UserError(
                f"mesh=[{groups}, {shares}] is {groups} groups of {shares}, {groups * shares} processes together, and "
                f"{processes} {'was' if processes == 1 else 'were'} started."
            )
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
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in CHANGEABLE}


@settings(kw_only=True)
class PretrainConfig(TrainingConfig):
    """Settings of masked-autoencoder pretraining."""

    decoder_dim: Count = 128
    """Decoder width."""
    decoder_depth: Count = 8
    """Decoder blocks."""
    decoder_heads: Count = 4
    """Decoder attention heads."""
    freeze_encoder: Switch = False
    """Train the decoder alone, on the encoder of `start_from` as it is: for reconstructions by an encoder that was distilled,
    and scores of images from it."""

    def __post_init__(self) -> None:
        """Refuse what cannot run.

        Raises:
            UserError: Settings contradict each other.
        """
        super().__post_init__()
        if self.freeze_encoder and self.start_from is None:
            raise UserError("freeze_encoder keeps an encoder as it is: give the weights of one as start_from.")
        if self.decoder_dim % self.decoder_heads:
            raise UserError(
                f"A decoder {self.decoder_dim} wide cannot have {self.decoder_heads} heads: choose heads that divide the width."
            )


@settings(kw_only=True)
class DistillConfig(TrainingConfig):
    """Settings of distillation; `variant` is the student, `mask_ratio` 0 shows it whole images."""

    teacher: Text
    """A timm model name, Pixio variants included."""
    teacher_weights: Text = "pretrained"
    """`pretrained`, `random`, or the path of a weights file."""
    teacher_image_size: Count | None = None
    """Side in pixels that the student's images are resized to for the teacher; null keeps them."""

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run must share; the teacher's weights count, not where their file lies."""
        return {key: value for key, value in super().identity().items() if key != "teacher_weights"}
