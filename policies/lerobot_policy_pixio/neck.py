"""The neck between encoder and policy: shrink an image's tokens, keep where they were.

Shape letters: B batch, G global tokens, D encoder width, h and w patch grid, N = 1 + h·w, K neck width,
Q queries, F features of one image, T neck tokens, M policy width.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from lerobot.policies.diffusion.modeling_diffusion import SpatialSoftmax
from torch import Tensor, nn

from pixio_robot.encoders import EncoderTokens, readout

_cls_mean = readout("cls_mean")


class Neck(nn.Module, ABC):
    """What all necks share: the tokens of one camera become features, and those the policy's tokens."""

    reads_patches: ClassVar[bool] = True
    """Whether patch tokens are looked at; without them, those need not be cached."""

    def __init__(
        self,
        encoder_width: int,
        grid: tuple[int, int],
        neck_width: int,
        num_tokens: int = 1,
        output_width: int | None = None,
    ) -> None:
        """Create the neck of one camera.

        Args:
            encoder_width: Width D of the encoder's tokens.
            grid: Patch grid (h, w).
            neck_width: Numbers K that remain of each token, keypoint or query.
            num_tokens: Tokens T handed to the policy.
            output_width: Width M of the policy's tokens; None hands out the features themselves.
        """
        super().__init__()
        self.num_tokens = num_tokens
        self.num_features = self._build(encoder_width, grid, neck_width)
        self.mix: nn.Sequential | None = None
        if output_width is not None:
            self.mix = nn.Sequential(
                nn.Linear(self.num_features, output_width),
                nn.GELU(),
                nn.Linear(output_width, num_tokens * output_width),
            )

    @abstractmethod
    def _build(self, encoder_width: int, grid: tuple[int, int], neck_width: int) -> int:
        """Make the layers and return the length F of one image's features."""

    @abstractmethod
    def features(self, tokens: EncoderTokens) -> Tensor:
        """Return (B, F)."""

    def forward(self, tokens: EncoderTokens) -> Tensor:
        """Return (B, T, M), or (B, 1, F) of a neck without output width."""
        features_BF = self.features(tokens)
        if self.mix is None:
            return features_BF.unsqueeze(1)
        return self.mix(features_BF).unflatten(1, (self.num_tokens, -1))


class FlattenNeck(Neck):
    """Reduce each encoder token to a few numbers and flatten them, so that positions survive.

    Attention learnt from nothing over all tokens reaches far less in a short training.
    """

    def _build(self, encoder_width: int, grid: tuple[int, int], neck_width: int) -> int:
        self.normalise = nn.LayerNorm(encoder_width)
        self.shrink_patches = nn.Linear(encoder_width, neck_width)
        self.shrink_global = nn.Linear(encoder_width, neck_width)
        return (grid[0] * grid[1] + 1) * neck_width

    def features(self, tokens: EncoderTokens) -> Tensor:
        """Return (B, (h·w + 1)·K)."""
        patches = self.shrink_patches(self.normalise(tokens.patch_tokens)).flatten(1)
        mean_global = self.shrink_global(self.normalise(_cls_mean(tokens)))
        return torch.cat([patches, mean_global], dim=1)


class SpatialSoftmaxNeck(Neck):
    """Reduce the patch tokens to keypoints: for each of K learned channels, where in the image it is strong.

    The expected coordinates run from −1 (left, top) to 1 (Finn et al., arXiv 1509.06113; LeRobot's layer).
    """

    def _build(self, encoder_width: int, grid: tuple[int, int], neck_width: int) -> int:
        self.normalise = nn.LayerNorm(encoder_width)
        self.keypoints = SpatialSoftmax((encoder_width, *grid), num_kp=neck_width)
        self.shrink_global = nn.Linear(encoder_width, neck_width)
        return 3 * neck_width

    def features(self, tokens: EncoderTokens) -> Tensor:
        """Return (B, 2·K + K): the keypoints' x and y, and the shrunk mean of the global tokens."""
        patches_BDhw = self.normalise(tokens.patch_tokens).permute(0, 3, 1, 2)
        keypoints = self.keypoints(patches_BDhw).flatten(1)
        mean_global = self.shrink_global(self.normalise(_cls_mean(tokens)))
        return torch.cat([keypoints, mean_global], dim=1)


class AttentionPoolNeck(Neck):
    """Let learned queries attend to all tokens, each with the learned embedding of its position."""

    NUM_QUERIES = 8
    """As many as Pixio has class tokens."""
    WIDENING = 4
    """Attention runs at this multiple of the neck width, in heads of the neck width."""

    def _build(self, encoder_width: int, grid: tuple[int, int], neck_width: int) -> int:
        inner_width = self.WIDENING * neck_width
        self.normalise = nn.LayerNorm(encoder_width)
        self.project = nn.Linear(encoder_width, inner_width)
        # As large as the projected tokens, so that positions are told apart from the first step on.
        self.positions_ND = nn.Parameter(torch.randn(grid[0] * grid[1] + 1, inner_width) / math.sqrt(3))
        self.queries_QD = nn.Parameter(torch.randn(self.NUM_QUERIES, inner_width))
        self.attend = nn.MultiheadAttention(inner_width, self.WIDENING, batch_first=True)
        self.shrink = nn.Linear(inner_width, neck_width)
        return self.NUM_QUERIES * neck_width

    def features(self, tokens: EncoderTokens) -> Tensor:
        """Return (B, Q·K)."""
        tokens_BND = torch.cat([tokens.patch_tokens.flatten(1, 2), _cls_mean(tokens).unsqueeze(1)], dim=1)
        values_BND = self.project(self.normalise(tokens_BND)) + self.positions_ND
        queries_BQD = self.queries_QD.expand(len(values_BND), -1, -1)
        pooled_BQD, _ = self.attend(queries_BQD, values_BND, values_BND, need_weights=False)
        return self.shrink(pooled_BQD).flatten(1)


class ClsMeanNeck(Neck):
    """Take the mean of the global tokens: the paper's readout for robot learning (table 5), without positions."""

    reads_patches = False

    def _build(self, encoder_width: int, grid: tuple[int, int], neck_width: int) -> int:
        del grid, neck_width
        return encoder_width

    def features(self, tokens: EncoderTokens) -> Tensor:
        """Return (B, D)."""
        return _cls_mean(tokens)


NECKS: dict[str, type[Neck]] = {
    "flatten": FlattenNeck,
    "spatial_softmax": SpatialSoftmaxNeck,
    "attention_pool": AttentionPoolNeck,
    "cls_mean": ClsMeanNeck,
}
