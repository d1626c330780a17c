"""Behaviour cloning with CortexBench's head, as a LeRobot policy.

Shape letters: B batch, O observation steps, F features of all cameras at a step, S state size, H chunk size,
A action size, E width of a task's embedding.
"""

from typing import Any

import torch
from lerobot.policies import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from torch import Tensor, nn

from lerobot_policy_pixio.configuration_pixio_bc import PixioBCConfig
from lerobot_policy_pixio.history_policy import HistoryPolicy
from lerobot_policy_pixio.vision_policy import mean_within_episodes
from pixio_robot.common.errors import UserError


def fuse_history(features_BOF: Tensor) -> Tensor:
    """Return the differences between neighbouring steps, oldest first, then the last step: (B, O·F).

    With three steps this is CortexBench's concat(e1 − e0, e2 − e1, e2); with one, the step itself.
    """
    return torch.cat([features_BOF.diff(dim=1).flatten(1), features_BOF[:, -1]], dim=1)


class PixioBCPolicy(HistoryPolicy, PreTrainedPolicy):
    """Fused embeddings and proprioception → batch or layer norm → MLP → a chunk of actions; mean squared error."""

    config_class = PixioBCConfig  # type: ignore[assignment]
    name = "pixio_bc"  # type: ignore[assignment]
    config: PixioBCConfig

    def _neck_shape(self) -> tuple[int, None]:
        return 1, None

    def _build_head(self) -> None:
        config = self.config
        assert config.robot_state_feature is not None and config.action_feature is not None
        features = sum(neck.num_features for neck in self.necks.values())  # type: ignore[misc]
        width = config.n_obs_steps * features + config.robot_state_feature.shape[0] + self.task_width
        layers: list[nn.Module] = [nn.BatchNorm1d(width) if config.input_norm == "batch" else nn.LayerNorm(width)]
        for _ in range(config.hidden_layers):
            layers += [nn.Linear(width, config.hidden_width), nn.ReLU()]
            width = config.hidden_width
        self._action_size = config.action_feature.shape[0]
        self.head = nn.Sequential(*layers, nn.Linear(width, config.chunk_size * self._action_size))

    def loss_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean squared error over the actions within their episodes.

        Raises:
            UserError: One window only, over which the batch cannot be normalised.
        """
        if self.training and self.config.input_norm == "batch" and len(batch[ACTION]) == 1:
            raise UserError(
                "pixio_bc normalises over the batch, which needs a batch size of at least 2, not 1, or "
                "policy.input_norm=layer."
            )
        errors_BHA = (self._predict(batch) - batch[ACTION]).square()
        return {"mse_loss": mean_within_episodes(errors_BHA, batch)}

    def loss_weights(self, batch: dict[str, Tensor]) -> list[int]:
        """Return the number of actions within their episodes."""
        return [int((~batch["action_is_pad"]).sum())]

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Return normalised actions (B, chunk_size, A)."""
        del kwargs
        self.eval()
        return self._predict(batch)

    def _predict(self, batch: dict[str, Tensor]) -> Tensor:
        features_BOF, states_BOS = self._observed(batch)
        task_BE = self.task_features(batch)
        fused = torch.cat(
            [fuse_history(features_BOF), states_BOS[:, -1], *([] if task_BE is None else [task_BE])], dim=1
        )
        return self.head(fused).unflatten(1, (-1, self._action_size))
