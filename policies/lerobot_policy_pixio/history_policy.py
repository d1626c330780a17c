"""Policies that condition on a history of observations as one vector per step, and emit chunks of actions.

Shape letters: B batch, O observation steps, F features of all cameras at a step, S state size, H action horizon,
A action size.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import torch
from lerobot.policies.utils import populate_queues
from lerobot.utils.constants import OBS_STATE
from torch import Tensor

from lerobot_policy_pixio.vision_config import tokens_key
from lerobot_policy_pixio.vision_policy import VisionPolicy
from pixio_robot.common.errors import UserError


class HistoryPolicy(VisionPolicy):
    """Stands before LeRobot's policy class among the bases of a policy with a history of observations.

    Where `n_obs_steps` is 1, a batch may leave out the axis of observation steps.

    Attributes:
        episode_seeds: What the episode in each row was reset with, for a policy that samples; whoever runs episodes
            sets it before `reset`. None draws seeds from torch's own generator for every episode.
    """

    episode_seeds: Sequence[int] | None = None

    _observations: dict[str, deque[Tensor]]
    _actions: deque[Tensor]
    _num_chunks: int

    def reset(self) -> None:
        """Forget the past; called at the start of every episode."""
        keys = [OBS_STATE, *self._grids, *(tokens_key(key) for key in self._grids)]
        self._observations = {key: deque(maxlen=self.config.n_obs_steps) for key in keys}
        self._actions = deque(maxlen=self.config.n_action_steps)
        self._num_chunks = 0

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Return the next normalised action (B, A) for one observation, without an axis of steps.

        The first observation of an episode stands for the ones before it. Each frame is encoded once at most: when a new
        chunk of actions is due, or, where several chunks look at it, when it comes.

        Args:
            batch: The observation.
            noise: What sampling starts from, (B, H, A), if a new chunk is due and the policy samples.
        """
        self.eval()
        if self.config.n_action_steps < self.config.n_obs_steps:  # the next chunk looks at these frames, too
            batch = self._encoded(batch)
        populate_queues(self._observations, batch)
        if not self._actions:
            history = {key: torch.stack(list(queue), dim=1) for key, queue in self._observations.items() if queue}
            history |= {key: batch[key] for key in ("task",) if key in batch}
            chunk_BHA = self._next_chunk(history, noise)
            self._actions.extend(chunk_BHA[:, : self.config.n_action_steps].transpose(0, 1))
            self._num_chunks += 1
        return self._actions.popleft()

    def looks_at_next_observation(self) -> bool:
        """Tell whether it is among the last `n_obs_steps` before the next chunk."""
        return len(self._actions) < self.config.n_obs_steps

    def _encoded(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put the encoder's tokens in the place of frames."""
        encoded = dict(batch)
        for key in self._grids:
            if key in batch and tokens_key(key) not in batch:
                tokens = self._encode(encoded.pop(key), key)
                encoded[tokens_key(key)] = tokens.flatten() if self.reads_patches else tokens.global_tokens
        return encoded

    def _next_chunk(self, history: dict[str, Tensor], noise: Tensor | None) -> Tensor:
        """Return the actions (B, ≥ n_action_steps, A) from now on; a policy that samples uses the noise."""
        del noise
        return self.predict_action_chunk(history)

    def _observed(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the cameras' features (B, O, F) and the states (B, O, S).

        Raises:
            UserError: A camera is missing, or the history is shorter or longer than the policy's.
        """
        stepped = self._with_step_axis(batch)
        cameras = [tokens.flatten(2) for tokens in self.camera_tokens(stepped).values()]
        return torch.cat(cameras, dim=-1), stepped[OBS_STATE]

    def _with_step_axis(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give every observation (B, …) an axis of steps if it has none, and check its length."""
        item_dimensions = {OBS_STATE: 1, **dict.fromkeys(self._grids, 3)}
        item_dimensions.update({tokens_key(key): 2 for key in self._grids})
        stepped = dict(batch)
        for key, dimensions in item_dimensions.items():
            value = batch.get(key)
            if value is None:
                continue
            stepped[key] = value.unsqueeze(1) if value.ndim == 1 + dimensions else value
            found = stepped[key].shape[1]
            if found != self.config.n_obs_steps:
                raise UserError(
                    f"{key} brings {found} observation step(s), but {self.config.type} was made for "
                    f"{self.config.n_obs_steps}; set policy.n_obs_steps={found}, or bring the history along."
                )
        return stepped
