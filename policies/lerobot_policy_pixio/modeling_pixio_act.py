"""ACT on a Pixio (or any timm) encoder, as a LeRobot policy.

Shape letters: B batch, T neck tokens, M policy width.
"""

from typing import Any

import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from torch import Tensor, nn

from lerobot_policy_pixio.configuration_pixio_act import PixioACTConfig
from lerobot_policy_pixio.vision_policy import VisionPolicy


class _FeatureMapBackbone(nn.Module):
    """Stands where ACT expects a ResNet; the features were computed before."""

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"feature_map": features}


class PixioACTPolicy(VisionPolicy, ACTPolicy):
    """ACT whose image tokens come from one encoder shared by all cameras and a neck per camera."""

    config_class = PixioACTConfig
    name = "pixio_act"
    config: PixioACTConfig

    def __init__(self, config: PixioACTConfig, *, encoder_from_checkpoint: bool = False, **kwargs: Any) -> None:  # noqa: ANN401
        """Build the policy.

        Args:
            config: The configuration, with input and output features filled in.
            encoder_from_checkpoint: Leave the encoder's weights to the checkpoint about to be loaded.
            **kwargs: What LeRobot's factory passes to every policy (`dataset_stats`, `dataset_meta`).

        Raises:
            UserError: No cameras; unknown encoder or neck; weights unreachable; image size not divisible by the patch.
        """
        super().__init__(config, **kwargs)
        self._build_vision(config.neck_tokens, config.dim_model, encoder_from_checkpoint=encoder_from_checkpoint)
        self.model.backbone = _FeatureMapBackbone()  # type: ignore[assignment]
        self.model.encoder_img_feat_input_proj = nn.Identity()  # type: ignore[assignment]

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the training loss (scalar) and its parts, for images or cached tokens."""
        return super().forward(self._with_camera_features(batch))

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Return normalised actions (B, chunk_size, A)."""
        self.eval()
        return super().predict_action_chunk(self._with_camera_features(batch), **kwargs)

    def looks_at_next_observation(self) -> bool:
        """Tell whether the chunk is used up, or a new one is predicted at every step for temporal ensembling."""
        return self.config.temporal_ensemble_coeff is not None or not self._action_queue

    def _with_camera_features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        # ACT wants a feature map (B, M, height, width): one row of neck tokens.
        maps = {key: tokens_BTM.transpose(1, 2).unsqueeze(2) for key, tokens_BTM in self.camera_tokens(batch).items()}
        return {**batch, **maps}
