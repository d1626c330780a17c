"""The Pixio masked autoencoder around a Pixio encoder (arXiv 2512.15715, §3).

Shape letters: B images, C channels, H and W pixels, P patch side, N patches, V visible and M masked patches,
G class tokens, D encoder width, E decoder width, X = C·P·P pixel values of a patch.
"""

import math
from typing import NamedTuple

import torch
from timm.layers.norm import LayerNorm
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import PixioVisionTransformer
from pixio_robot.images.patches import patch_statistics, patchify, take_patches
from pixio_robot.pretraining.model.masking import block_mask, split_patches


class MAEOutput(NamedTuple):
    """What `PixioMAE` returns: scalar loss, prediction (B, M, C·P·P) and masked patches (B, M).

    The prediction holds normalised pixels of the masked patches in ascending patch order.
    """

    loss: Tensor
    prediction_BMX: Tensor
    masked_BM: Tensor


def encode_visible(
    encoder: PixioVisionTransformer, patches_BNX: Tensor, visible_BV: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Run an encoder on class tokens and visible patches alone: (B, N, X), (B, V) → normalised (B, G+V, D)."""
    batch, prefix = len(patches_BNX), encoder.num_prefix_tokens
    position = encoder.positions(*grid)
    classes = encoder.class_tokens() + position[:, :prefix]
    # The patch embedding as the linear layer that it is, so that masked patches cost nothing.
    projection = encoder.patch_embed.proj
    embedded_BVD = functional.linear(
        take_patches(patches_BNX, visible_BV), projection.weight.flatten(1), projection.bias
    )
    embedded_BVD = embedded_BVD + take_patches(position[:, prefix:].expand(batch, -1, -1), visible_BV)
    tokens = torch.cat([classes.expand(batch, -1, -1), embedded_BVD], dim=1)
    return encoder.norm(encoder.blocks(tokens))


class MAEDecoder(nn.Module):
    """Narrow and deep: full self-attention over class, visible and mask tokens; predicts masked patches only."""

    def __init__(
        self,
        encoder_dim: int,
        grid: tuple[int, int],
        class_tokens: int,
        patch_values: int,
        dim: int,
        depth: int,
        heads: int,
    ) -> None:
        """Build a decoder whose position embedding is made for `grid` patches (resampled for other grids)."""
        super().__init__()
        assert dim % heads == 0, f"{heads} heads do not divide a width of {dim}"
        self.grid = grid
        self.class_tokens = class_tokens
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, class_tokens + math.prod(grid), dim))
        self.blocks = nn.Sequential(*[Block(dim, heads, qkv_bias=True) for _ in range(depth)])
        self.norm = LayerNorm(dim)
        self.head = nn.Linear(dim, patch_values)
        self.initialise()

    def initialise(self) -> None:
        """Xavier linears, N(0, 0.02) mask token, truncated normal 0.02 positions, as the encoder does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, tokens_BLD: Tensor, visible_BV: Tensor, masked_BM: Tensor, grid: tuple[int, int]) -> Tensor:
        """Predict masked patches (B, M, X) from encoded class and visible tokens (B, G+V, D)."""
        batch = tokens_BLD.shape[0]
        position = resample_abs_pos_embed(  # pyright: ignore[reportCallIssue] (timm wraps it for fx by name)
            self.pos_embed, new_size=grid, old_size=self.grid, num_prefix_tokens=self.class_tokens, antialias=False
        )
        position_BNE = position[:, self.class_tokens :].expand(batch, -1, -1)
        # Attention does not care about order, so masked tokens stay at the end: no unshuffling, and the head
        # reads a plain slice.
        known = self.embed(tokens_BLD) + torch.cat(
            [
                position[:, : self.class_tokens].expand(batch, -1, -1),
                take_patches(position_BNE, visible_BV),
            ],
            dim=1,
        )
        hidden = self.mask_token + take_patches(position_BNE, masked_BM)
        x = self.blocks(torch.cat([known, hidden], dim=1))
        return self.head(self.norm(x[:, known.shape[1] :]))


class PixioMAE(nn.Module):
    """Masked autoencoder: `encoder` sees class tokens and visible patches, a decoder predicts the masked ones.

    Args:
        encoder: Its blocks, position embedding and final norm are used as they are.
        decoder_dim: Decoder width.
        decoder_depth: Decoder blocks.
        decoder_heads: Attention heads per decoder block.
        mask_ratio: Fraction of blocks hidden from the encoder, in [0, 1).
        mask_block: Side of a mask block in patches.
    """

    def __init__(
        self,
        encoder: PixioVisionTransformer,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
        mask_ratio: float,
        mask_block: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask_ratio = mask_ratio
        self.mask_block = mask_block
        self.patch = int(encoder.patch_embed.patch_size[0])
        self.decoder = MAEDecoder(
            encoder.embed_dim,
            encoder.patch_embed.grid_size,
            encoder.num_prefix_tokens,
            encoder.in_chans * self.patch**2,
            decoder_dim,
            decoder_depth,
            decoder_heads,
        )

    def initialise(self) -> None:
        """Set all parameters to their initial values."""
        self.encoder.initialise()
        self.decoder.initialise()

    def patch_grid(self, images_BCHW: Tensor) -> tuple[int, int]:
        """Patches along height and width.

        Raises:
            UserError: A side of the image is not divisible by the patch.
        """
        height, width = images_BCHW.shape[-2:]
        if height % self.patch or width % self.patch:
            raise UserError(
                f"Images of {height}x{width} pixels cannot be cut into patches of {self.patch}: "
                f"choose sides divisible by {self.patch}."
            )
        return height // self.patch, width // self.patch

    def encode(self, patches_BNX: Tensor, visible_BV: Tensor, grid: tuple[int, int]) -> Tensor:
        """Run the encoder on class tokens and visible patches alone: (B, N, X), (B, V) → (B, G+V, D)."""
        return encode_visible(self.encoder, patches_BNX, visible_BV, grid)

    def forward(
        self,
        images_BCHW: Tensor,
        generator: torch.Generator | None = None,
        mask_BN: Tensor | None = None,
        patches: tuple[Tensor, Tensor] | None = None,
    ) -> MAEOutput:
        """Mask, encode, decode and compare.

        Args:
            images_BCHW: Normalised float images, sides divisible by the patch.
            generator: Source of the masks; on the CPU, whatever the device of the images.
            mask_BN: Use these masks instead of drawing some; equally many masked patches per image.
            patches: Or these visible (B, V) and masked (B, M) patches, on the images' device, for which nothing waits.

        Raises:
            UserError: The image size does not fit the patch or the mask block.
        """
        grid = self.patch_grid(images_BCHW)
        if patches is None:
            if mask_BN is None:
                mask_BN = block_mask(len(images_BCHW), grid, self.mask_ratio, self.mask_block, generator)
            visible_BV, masked_BM = (index.to(images_BCHW.device) for index in split_patches(mask_BN))
        else:
            visible_BV, masked_BM = patches
        loss, prediction_BMX = self.compare(images_BCHW, visible_BV, masked_BM, grid)
        return MAEOutput(loss, prediction_BMX, masked_BM)

    def compare(
        self,
        images_BCHW: Tensor,
        visible_BV: Tensor,
        masked_BM: Tensor,
        grid: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Encode visible patches, predict masked ones (B, M, X) and return the loss with the prediction.

        The loss is the mean squared error against per-patch normalised pixels (arXiv 2512.15715, §3).
        """
        patches_BNX = patchify(images_BCHW, self.patch)
        tokens_BLD = self.encode(patches_BNX, visible_BV, grid)
        prediction_BMX = self.decoder(tokens_BLD, visible_BV, masked_BM, grid)
        target_BMX = take_patches(patches_BNX, masked_BM).float()
        mean, deviation = patch_statistics(target_BMX)
        return functional.mse_loss(prediction_BMX.float(), (target_BMX - mean) / deviation), prediction_BMX
