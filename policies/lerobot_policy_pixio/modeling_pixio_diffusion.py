"""Diffusion policy on a Pixio (or any timm) encoder, as a LeRobot policy.

Shape letters: B batch, O observation steps, F features of all cameras at a step, H horizon, A action size,
E width of a task's embedding.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies import PreTrainedPolicy
from lerobot.policies.diffusion.modeling_diffusion import DiffusionModel
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from torch import Tensor

from lerobot_policy_pixio.configuration_pixio_diffusion import PixioDiffusionConfig
from lerobot_policy_pixio.history_policy import HistoryPolicy
from pixio_robot.common.noise import chunk_noise


class PixioDiffusionPolicy(HistoryPolicy, PreTrainedPolicy):
    """LeRobot's diffusion model, conditioned on states, on the neck tokens of all cameras and on the task.

    To LeRobot's model the cameras' features, and the task's, are an `observation.environment_state`, so that it builds no image
    encoder of its own and needs no change.
    """

    config_class = PixioDiffusionConfig  # type: ignore[assignment]
    name = "pixio_diffusion"  # type: ignore[assignment]
    config: PixioDiffusionConfig

    def _neck_shape(self) -> tuple[int, int]:
        return self.config.neck_tokens, self.config.neck_output_width

    def _build_head(self) -> None:
        config = self.config
        assert config.robot_state_feature is not None and config.action_feature is not None
        width = len(self.necks) * config.neck_tokens * config.neck_output_width + self.task_width
        features = {
            OBS_STATE: config.robot_state_feature,
            OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (width,)),
        }
        self.diffusion = DiffusionModel(dataclasses.replace(config, input_features=features))
        self._noise_shape = (config.horizon, config.action_feature.shape[0])

    def reset(self) -> None:
        """Forget the past, and which episodes are in the rows."""
        super().reset()
        self._row_seeds: Sequence[int] | None = None

    def loss_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean squared error of the denoised chunks."""
        conditions = self._conditions(batch)
        actions = {key: batch[key] for key in (ACTION, "action_is_pad")}
        return {"mse_loss": self.diffusion.compute_loss({**conditions, **actions})}

    def loss_weights(self, batch: dict[str, Tensor]) -> list[int]:
        """Return the number of actions that count: all, or those within their episodes."""
        if self.config.do_mask_loss_for_padding:
            return [int((~batch["action_is_pad"]).sum())]
        return [batch["action_is_pad"].numel()]

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], noise: Tensor | None = None, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Return normalised actions (B, n_action_steps, A) from the present step on.

        Args:
            batch: Observations.
            noise: What sampling starts from, (B, H, A) standard normal; None draws it.
            **kwargs: What LeRobot passes to other policies.
        """
        del kwargs
        self.eval()
        return self.diffusion.generate_actions(self._conditions(batch), noise=noise)

    def _next_chunk(self, history: dict[str, Tensor], noise: Tensor | None) -> Tensor:
        """Sample from noise that depends on each row's episode and the number of chunks since its reset alone."""
        states_BOS = history[OBS_STATE]
        if noise is None:
            rows = len(states_BOS)
            if self._row_seeds is None:
                self._row_seeds = self.episode_seeds or torch.randint(2**31, (rows,)).tolist()
            assert len(self._row_seeds) == rows, "a seed for each row"
            drawn = [chunk_noise(self._noise_shape, seed, self._num_chunks) for seed in self._row_seeds]
            noise = torch.from_numpy(np.stack(drawn)).to(states_BOS)
        return self.predict_action_chunk(history, noise=noise)

    def _conditions(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        features_BOF, states_BOS = self._observed(batch)
        task_BE = self.task_features(batch)
        if task_BE is not None:
            task_BOE = task_BE.unsqueeze(1).expand(-1, features_BOF.shape[1], -1)
            features_BOF = torch.cat([features_BOF, task_BOE], dim=-1)
        return {OBS_STATE: states_BOS, OBS_ENV_STATE: features_BOF}
