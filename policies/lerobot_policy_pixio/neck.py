"""The neck between encoder and policy: shrink every token, keep where it was.

Shape letters: B batch, G global tokens, D encoder width, h and w patch grid, T neck tokens, M policy width.
"""

import torch
from torch import Tensor, nn

from pixio_robot.encoders import EncoderTokens


class FlattenNeck(nn.Module):
    """Reduce each encoder token to a few numbers and flatten them, so that positions survive.

    Attention learnt from nothing over all tokens reaches far less in a short training.
    """

    def __init__(
        self, encoder_width: int, num_patches: int, neck_width: int, num_tokens: int, output_width: int
    ) -> None:
        """Create the neck of one camera.

        Args:
            encoder_width: Width D of the encoder's tokens.
            num_patches: Number h·w of patch tokens.
            neck_width: Numbers that remain of each token.
            num_tokens: Tokens T handed to the policy.
            output_width: Width M of the policy's tokens.
        """
        super().__init__()
        self.num_tokens = num_tokens
        self.normalise = nn.LayerNorm(encoder_width)
        self.shrink_patches = nn.Linear(encoder_width, neck_width)
        self.shrink_global = nn.Linear(encoder_width, neck_width)
        self.mix = nn.Sequential(
            nn.Linear((num_patches + 1) * neck_width, output_width),
            nn.GELU(),
            nn.Linear(output_width, num_tokens * output_width),
        )

    def forward(self, tokens: EncoderTokens) -> Tensor:
        """Return (B, T, M)."""
        patches = self.shrink_patches(self.normalise(tokens.patch_tokens)).flatten(1)
        mean_global = self.shrink_global(self.normalise(tokens.global_tokens.mean(dim=1)))
        return self.mix(torch.cat([patches, mean_global], dim=1)).unflatten(1, (self.num_tokens, -1))
