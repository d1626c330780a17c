"""ACT on a Pixio (or any timm) encoder, as a LeRobot policy.

Shape letters: B batch, N encoder tokens, D encoder width, T neck tokens, M policy width.
"""

from pathlib import Path
from typing import Any

import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.utils.constants import OBS_IMAGES
from torch import Tensor, nn

from lerobot_policy_pixio.configuration_pixio_act import PixioACTConfig, tokens_key
from lerobot_policy_pixio.neck import FlattenNeck
from pixio_robot.encoders import EncoderConfig, EncoderTokens, VisionEncoder
from pixio_robot.errors import UserError


class _FeatureMapBackbone(nn.Module):
    """Stands where ACT expects a ResNet; the features were computed before."""

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"feature_map": features}


class PixioACTPolicy(ACTPolicy):
    """ACT whose image tokens come from one encoder shared by all cameras and a neck per camera.

    A batch brings, for each camera, images in [0, 1] (B, 3, H, W) or cached encoder tokens
    `observation.tokens.<camera>` (B, N, D); cached tokens win.
    """

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
            UserError: No cameras; unknown encoder; weights unreachable; image size not divisible by the patch.
        """
        super().__init__(config, **kwargs)
        if not config.image_features:
            raise UserError("pixio_act needs at least one camera (observation.images.*), but the data has none.")
        self.encoder = VisionEncoder(
            EncoderConfig(
                name=config.encoder_name,
                weights="random" if encoder_from_checkpoint else config.encoder_weights,
                mode=config.encoder_mode,  # type: ignore[arg-type]
                image_size=config.encoder_image_size,
            )
        )
        self._grids = {key: self.encoder.grid(*feature.shape[-2:]) for key, feature in config.image_features.items()}
        self.necks = nn.ModuleDict(
            {
                key.removeprefix(f"{OBS_IMAGES}.").replace(".", "_"): FlattenNeck(
                    self.encoder.width, h * w, config.neck_width, config.neck_tokens, config.dim_model
                )
                for key, (h, w) in self._grids.items()
            }
        )
        self.model.backbone = _FeatureMapBackbone()
        self.model.encoder_img_feat_input_proj = nn.Identity()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> "PixioACTPolicy":  # noqa: ANN401
        """Load a saved policy; its encoder weights come from the checkpoint, never from the hub."""
        return super().from_pretrained(pretrained_name_or_path, encoder_from_checkpoint=True, **kwargs)

    @classmethod
    def _load_as_safetensor(
        cls, model: "PixioACTPolicy", model_file: str, map_location: str, strict: bool
    ) -> "PixioACTPolicy":
        """Load strictly: LeRobot's default would leave missing weights at their random values."""
        del strict
        try:
            return super()._load_as_safetensor(model, model_file, map_location, True)
        except RuntimeError as error:
            raise UserError(
                f"{model_file} does not fit its own config.json ({str(error).splitlines()[0]}); the checkpoint "
                f"is incomplete or was edited."
            ) from error

    def get_optim_params(self) -> list[Tensor]:  # type: ignore[override]
        """Return the trainable parameters: without the encoder's while it is frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the training loss (scalar) and its parts, for images or cached tokens."""
        return super().forward(self._with_camera_features(batch))

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Return normalised actions (B, chunk_size, A)."""
        self.eval()
        return super().predict_action_chunk(self._with_camera_features(batch), **kwargs)

    def _with_camera_features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        batch = dict(batch)
        for (image_key, grid), neck in zip(self._grids.items(), self.necks.values(), strict=True):
            cached_BND = batch.get(tokens_key(image_key))
            if cached_BND is None:
                tokens = self.encoder(batch[image_key])
            else:
                tokens = EncoderTokens.unflatten(cached_BND, self.encoder.num_global, grid)
            # ACT wants a feature map (B, M, height, width): one row of neck tokens.
            batch[image_key] = neck(tokens).transpose(1, 2).unsqueeze(2)
        return batch
