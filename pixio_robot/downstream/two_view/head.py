"""The head: attention within views and across them, on frozen tokens.

Shape letters: B pairs, V views, D width of the encoder, E width of the head, N tokens of a view, h and w patch grid, p points
of a patch along each side.
"""

import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.downstream.two_view.config import TwoViewProtocol
from pixio_robot.downstream.two_view.geometry import Geometry, pinhole_rays
from pixio_robot.downstream.two_view.losses import Prediction
from pixio_robot.encoders import EncoderTokens

VIEWS = 2
_OF_A_POINT = 6  # ray, logarithm of the distance, logarithm of confidence - 1, logit of the mask
_FIRST_RAYS = 1.0  # focal length over image side of the rays that the head starts from: 53° across


class TwoViewHead(nn.Module):
    """Tells two views' geometry from their tokens.

    Blocks alternate between the tokens of each view and those of both; a camera token in each view tells its pose, a token of
    the pair tells its scale. Points come from patch tokens by one linear layer, so the head is a small form of MapAnything's,
    which has a DPT there.
    """

    def __init__(self, width: int, grid: tuple[int, int], protocol: TwoViewProtocol) -> None:
        """Build the head.

        Args:
            width: Of the encoder's tokens.
            grid: Its patches along height and width.
            protocol: Size of the head; `points` must be a multiple of the grid.
        """
        super().__init__()
        inner = protocol.width
        self.points = protocol.points
        self.patch_points = (protocol.points // grid[0], protocol.points // grid[1])
        self.patches, self.globals = nn.Linear(width, inner), nn.Linear(width, inner)
        self.camera = nn.Parameter(torch.randn(VIEWS, 1, inner) * 0.02)
        self.view = nn.Parameter(torch.randn(VIEWS, 1, inner) * 0.02)
        self.scale = nn.Parameter(torch.randn(1, 1, inner) * 0.02)
        place = build_sincos2d_pos_embed(list(grid), inner)
        self.register_buffer("place", place, persistent=False)
        self.place: Tensor
        self.within, self.across = (
            nn.ModuleList(Block(inner, protocol.heads, qkv_bias=True) for _ in range(protocol.rounds)) for _ in range(2)
        )
        self.norm = nn.LayerNorm(inner)
        self.to_points = nn.Linear(inner, self.patch_points[0] * self.patch_points[1] * _OF_A_POINT)
        self.to_pose = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, 7))
        self.to_scale = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, 1))
        for layer in (self.to_points, self.to_pose[-1], self.to_scale[-1]):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        at = (torch.arange(protocol.points) + 0.5) / protocol.points
        v, u = torch.meshgrid(at, at, indexing="ij")
        first = pinhole_rays(u, v, torch.tensor([_FIRST_RAYS, _FIRST_RAYS, 0.5, 0.5]))
        self.register_buffer("first_rays", first, persistent=False)
        self.first_rays: Tensor

    def forward(self, tokens: EncoderTokens, known_BVhw: Tensor) -> Prediction:
        """Tell the geometry of pairs, up to scale, and the scale.

        Args:
            tokens: Global (B, V, 1, D) and patch (B, V, h, w, D).
            known_BVhw: Where the truth has a depth; handed through.
        """
        patches_BVNE = self.patches(tokens.patch_tokens).flatten(2, 3) + self.place
        camera_BV1E = self.camera + self.globals(tokens.global_tokens)
        x_BVNE = torch.cat([camera_BV1E, patches_BVNE], dim=2) + self.view
        batch, views, count, _ = x_BVNE.shape
        scale_B1E = self.scale.expand(batch, -1, -1)
        for within, across in zip(self.within, self.across, strict=True):
            x_BVNE = within(x_BVNE.flatten(0, 1)).unflatten(0, (batch, views))
            both = across(torch.cat([scale_B1E, x_BVNE.flatten(1, 2)], dim=1))
            scale_B1E, x_BVNE = both[:, :1], both[:, 1:].unflatten(1, (views, count))
        x_BVNE, scale_B1E = self.norm(x_BVNE), self.norm(scale_B1E)
        pose_BV7 = self.to_pose(x_BVNE[:, :, 0]).float()
        numbers_BVhwK = self._to_grid(self.to_points(x_BVNE[:, :, 1:]).float())
        rays, distance, confidence, mask = numbers_BVhwK.split((3, 1, 1, 1), dim=-1)
        # Starts at no turn.
        turn_BV4 = pose_BV7[..., :4] + torch.tensor([1.0, 0.0, 0.0, 0.0], device=pose_BV7.device)
        geometry = Geometry(
            functional.normalize(self.first_rays + rays, dim=-1),
            distance[..., 0].exp(),
            functional.normalize(turn_BV4, dim=-1),
            pose_BV7[..., 4:],
            known_BVhw,
        )
        scale_B = self.to_scale(scale_B1E[:, 0]).float()[:, 0].exp()
        return Prediction(geometry, 1 + confidence[..., 0].exp(), mask[..., 0], scale_B)

    def _to_grid(self, numbers_BVNK: Tensor) -> Tensor:
        """Lay out what patches tell of their points as (B, V, h·p, w·p, K)."""
        batch, views = numbers_BVNK.shape[:2]
        p, q = self.patch_points
        h, w = self.points // p, self.points // q
        cells = numbers_BVNK.view(batch, views, h, w, p, q, _OF_A_POINT).permute(0, 1, 2, 4, 3, 5, 6)
        return cells.reshape(batch, views, h * p, w * q, _OF_A_POINT)
