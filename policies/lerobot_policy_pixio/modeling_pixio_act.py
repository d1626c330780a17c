"""ACT on a Pixio (or any timm) encoder, as a LeRobot policy.

Shape letters: B batch, T neck tokens, M policy width, E width of a task's embedding.
"""

import dataclasses
from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.act.modeling_act import ACT, ACTPolicy
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGES
from torch import Tensor, nn

from lerobot_policy_pixio.configuration_pixio_act import PixioACTConfig
from lerobot_policy_pixio.vision_policy import VisionPolicy, mean_within_episodes


class _FeatureMapBackbone(nn.Module):
    """Stands where ACT expects a ResNet; the features were computed before."""

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"feature_map": features}


class PixioACTPolicy(VisionPolicy, ACTPolicy):
    """ACT whose image tokens come from one encoder shared by all cameras and a neck per camera."""

    config_class = PixioACTConfig
    name = "pixio_act"
    config: PixioACTConfig

    def _neck_shape(self) -> tuple[int, int]:
        return self.config.neck_tokens, self.config.dim_model

    def _build_head(self) -> None:
        config = self.config
        if config.tasks:  # to LeRobot's model the task is an `observation.environment_state`, a token of its own
            task = {OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (self.task_width,))}
            self.model = ACT(dataclasses.replace(config, input_features={**(config.input_features or {}), **task}))
        self.model.backbone = _FeatureMapBackbone()  # type: ignore[assignment]
        self.model.encoder_img_feat_input_proj = nn.Identity()  # type: ignore[assignment]

    def loss_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ACT's absolute error over actions within their episodes and, with a VAE, its weighted divergence.

        LeRobot's `ACTPolicy.forward` adds the two before it returns them.
        """
        batch = self._with_camera_features(batch)
        batch[OBS_IMAGES] = [batch[key] for key in self.config.image_features]  # type: ignore[assignment]
        actions_BHA, (mean_BL, log_variance_BL) = self.model(batch)
        errors_BHA = nn.functional.l1_loss(batch[ACTION], actions_BHA, reduction="none")
        terms = {"l1_loss": mean_within_episodes(errors_BHA, batch)}
        if self.config.use_vae and mean_BL is not None and log_variance_BL is not None:
            divergence_BL = -0.5 * (1 + log_variance_BL - mean_BL.pow(2) - log_variance_BL.exp())
            terms["kld_loss"] = divergence_BL.sum(-1).mean() * self.config.kl_weight
        return terms

    def loss_weights(self, batch: dict[str, Tensor]) -> list[int]:
        """Return the numbers of actions within their episodes and, with a VAE, of windows."""
        valid = int((~batch["action_is_pad"]).sum())
        return [valid, len(batch[ACTION])] if self.config.use_vae and self.training else [valid]

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
        task_BE = self.task_features(batch)
        return {**batch, **maps, **({} if task_BE is None else {OBS_ENV_STATE: task_BE})}
