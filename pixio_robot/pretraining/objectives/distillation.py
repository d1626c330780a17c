"""Distillation of any encoder into a Pixio encoder (arXiv 2512.15715, section on distillation).

The teacher sees whole images; the student, optionally, only the blocks that a mask leaves. Both see the same crop with
the same colours. What is compared, 1 - cosine in float32:

* Features of the teacher before its final norm, of the student after it and after a head, Linear-LN-GELU-Linear, which
  all tokens share and which is thrown away in the end. Its inner width is not published; it is the teacher's here.
* Patch tokens: those the student sees, each with the teacher's of the same place. A teacher with another patch grid
  (another patch size, a convolutional network) has its map interpolated bilinearly to the student's grid.
* Class tokens: one with one where both have equally many, else the mean of the student's with the mean of the
  teacher's. A teacher without class tokens (a convolutional network) is compared on patch tokens alone.

The loss is the mean of the class tokens' and the patch tokens'.

Shape letters: B images, C channels, H and W pixels, N patches, V visible patches, G class tokens, D student's and T
teacher's width, h and w a patch grid.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import timm
import torch
from timm.layers.norm import LayerNorm
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderConfig, PixioVisionTransformer, VisionEncoder, weights_hash
from pixio_robot.encoders.pixio import PIXIO_VARIANTS
from pixio_robot.engine.processes import Processes
from pixio_robot.images.patches import patchify, take_patches
from pixio_robot.images.preprocessing import normalise
from pixio_robot.pretraining.config import DistillConfig
from pixio_robot.pretraining.model.mae import encode_visible
from pixio_robot.pretraining.model.weights import create_encoder, save_encoder
from pixio_robot.pretraining.objectives.base import ImageObjective, ImagePart
from pixio_robot.pretraining.sources import ImageSource


class TeacherTokens(NamedTuple):
    """What a student has to match: class tokens (B, G, T), or None, and a map of patch tokens (B, h, w, T)."""

    class_BGT: Tensor | None
    patch_BhwT: Tensor


class Teacher:
    """A frozen encoder whose tokens are read before its final norm."""

    def __init__(self, encoder: VisionEncoder) -> None:
        """Take over an encoder; its final norm is removed."""
        self.hash = weights_hash(encoder.backbone)
        # Convolutional networks run half as fast again that way; others are the same. torch's types lack this form.
        encoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.encoder = encoder.requires_grad_(False).eval()
        if isinstance(getattr(encoder.backbone, "norm", None), nn.Module):
            encoder.backbone.norm = nn.Identity()

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor) -> TeacherTokens:
        """Encode images in [0, 1]."""
        tokens = self.encoder(images_BCHW)
        has_class_tokens = getattr(self.encoder.backbone, "num_prefix_tokens", 0) > 0
        return TeacherTokens(tokens.global_tokens if has_class_tokens else None, tokens.patch_tokens)


class Student(nn.Module):
    """A Pixio encoder with the head that takes its tokens to the teacher's width."""

    def __init__(self, encoder: PixioVisionTransformer, teacher_dim: int) -> None:
        """Put a head, Linear-LN-GELU-Linear, on an encoder."""
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.Linear(encoder.embed_dim, teacher_dim),
            LayerNorm(teacher_dim),
            nn.GELU(),
            nn.Linear(teacher_dim, teacher_dim),
        )
        self._initialise_head()

    def initialise(self) -> None:
        """Set all parameters to their initial values, the head's as the encoder's."""
        self.encoder.initialise()
        self._initialise_head()

    def _initialise_head(self) -> None:
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.LayerNorm):
                layer.reset_parameters()

    def forward(self, images_BCHW: Tensor, visible_BV: Tensor) -> tuple[Tensor, Tensor]:
        """Guess the teacher's class tokens (B, G, T) and visible patch tokens (B, V, T) from normalised images."""
        patch = int(self.encoder.patch_embed.patch_size[0])
        grid = (images_BCHW.shape[-2] // patch, images_BCHW.shape[-1] // patch)
        tokens_BLD = encode_visible(self.encoder, patchify(images_BCHW, patch), visible_BV, grid)
        guess_BLT = self.head(tokens_BLD)
        prefix = self.encoder.num_prefix_tokens
        return guess_BLT[:, :prefix], guess_BLT[:, prefix:]


def distillation_loss(
    class_BGT: Tensor, patch_BVT: Tensor, teacher: TeacherTokens, visible_BV: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Compare a student's guesses with the teacher's tokens; see the module's docstring.

    Args:
        class_BGT: Student's class tokens after the head.
        patch_BVT: Student's visible patch tokens after the head.
        teacher: What they should be, up to their lengths.
        visible_BV: Which patches of the student's grid they are.
        grid: The student's patches along height and width.
    """
    map_BThw = teacher.patch_BhwT.float().permute(0, 3, 1, 2)
    if map_BThw.shape[-2:] != grid:
        map_BThw = functional.interpolate(map_BThw, grid, mode="bilinear", align_corners=False)
    patch_loss = _one_minus_cosine(patch_BVT, take_patches(map_BThw.flatten(2).transpose(1, 2), visible_BV))
    if teacher.class_BGT is None:
        return patch_loss
    target_BGT = teacher.class_BGT.float()
    if target_BGT.shape[1] != class_BGT.shape[1]:
        class_BGT, target_BGT = (tokens.mean(dim=1, keepdim=True) for tokens in (class_BGT, target_BGT))
    return 0.5 * _one_minus_cosine(class_BGT, target_BGT) + 0.5 * patch_loss


def _one_minus_cosine(guess_BLT: Tensor, target_BLT: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(guess_BLT.float(), target_BLT, dim=-1).mean()


def check_teacher_fits(teacher: str, free: int, where: str) -> None:
    """Refuse a teacher whose weights alone are more than there is room for, before they are loaded.

    Args:
        teacher: A timm model name; what is none is refused where it is built.
        free: Bytes.
        where: Whose, for the message.

    Raises:
        UserError: Says what would fit.
    """
    needed = _weight_bytes(teacher) if timm.is_model(teacher) else 0
    if needed <= free:
        return
    fitting = [name for name in PIXIO_VARIANTS if _weight_bytes(name) <= free]
    advice = (
        f"{fitting[-1]} ({_weight_bytes(fitting[-1]) / 1e9:.1f} GB) would fit"
        if fitting
        else "no Pixio encoder would fit"
    )
    raise UserError(
        f"The teacher {teacher} has {needed / 1e9:.1f} GB of weights in float32, and {free / 1e9:.1f} GB are free {where}: "
        f"choose a smaller distillation.teacher ({advice}), or a machine with more."
    )


@functools.cache
def _weight_bytes(name: str) -> int:
    with torch.device("meta"):
        return 4 * sum(value.numel() for value in timm.create_model(name, num_classes=0).parameters())


class Distillation(ImageObjective[DistillConfig]):
    """The objective of `scripts/distill_encoder.py`."""

    phase = "distillation"
    loss_name = "1 - cosine to the teacher's tokens"

    def __init__(self, config: DistillConfig) -> None:
        """Load the teacher and build the student.

        Raises:
            UserError: Unknown encoder, unreachable weights, or an image size that does not fit one of the encoders.
        """
        super().__init__(config)
        self.encoder = create_encoder(config.variant, config.image_size, config.drop_path)
        with torch.device("cpu"):  # the student may be on the meta device
            frozen = EncoderConfig(config.teacher, config.teacher_weights, "frozen", config.teacher_image_size)
            check_teacher_fits(config.teacher, psutil.virtual_memory().available, "in this machine's memory")
            if torch.device(config.device).type == "cuda" and torch.cuda.is_available():
                check_teacher_fits(config.teacher, torch.cuda.mem_get_info(config.device)[0], f"on {config.device}")
            # Building the teacher must not change which weights the student starts from.
            with torch.random.fork_rng(devices=[]):
                encoder = VisionEncoder(frozen)
            encoder.grid(config.image_size, config.image_size)
            self.teacher = Teacher(encoder)
        self.module = Student(self.encoder, encoder.width)
        self.start()

    def prepare(self, processes: Processes, source: ImageSource) -> None:
        """Place the teacher beside the student."""
        super().prepare(processes, source)
        self.teacher.encoder.to(processes.device)

    def identity(self) -> dict[str, Any]:
        """Return which weights the teacher has, beside the settings."""
        return super().identity() | {"teacher_hash": self.teacher.hash}

    def loss_of(self, module: nn.Module, images_BCHW: Tensor, part: ImagePart) -> Tensor:
        """Return the distillation loss."""
        class_BGT, patch_BVT = module(normalise(images_BCHW), part.visible_BV)
        return distillation_loss(class_BGT, patch_BVT, self.teacher(images_BCHW), part.visible_BV, self.grid)

    def write(self, folder: Path, dtype: torch.dtype, *, main: bool) -> None:
        """Write `encoder.safetensors`."""
        save_encoder(self.encoder, self.config.variant, folder, dtype, main)
