"""What all our policies share: one encoder for all cameras, a neck per camera, the task's embedding, and strict loading.

Shape letters: B batch, O observation steps, N encoder tokens, D encoder width, T neck tokens, M neck output width, E width of
a task's embedding.
"""

import abc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from lerobot.policies import PreTrainedPolicy
from lerobot.utils.constants import OBS_IMAGES
from torch import Tensor, nn

from lerobot_policy_pixio.neck import NECKS
from lerobot_policy_pixio.vision_config import tokens_key
from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.storage.documents import read_json
from pixio_robot.common.versions import software_versions
from pixio_robot.common.worlds import RUN_FILE, check_world
from pixio_robot.encoders import EncoderConfig, EncoderTokens, VisionEncoder
from pixio_robot.encoders.backbones import side_for_frames

_FEATURES = ("input_features", "output_features")
# A mixin must not itself be a policy: LeRobot asks every subclass of its base for a name and a config.
_Policy = PreTrainedPolicy if TYPE_CHECKING else object


class VisionPolicy(_Policy):
    """Stands before LeRobot's policy class among the bases of each of our policies.

    A batch brings, for each camera, images in [0, 1] (B, 3, H, W) or cached encoder tokens
    `observation.tokens.<camera>` (B, N, D), each with an axis of observation steps after B where there are
    several; cached tokens win. Where no neck reads patches (`reads_patches`), the global tokens alone will do.
    For a policy of several tasks `task` says which, as LeRobot has it: sentences, one a row; or, in an exported policy, their
    places in the config's `tasks`, int64 (B,).
    """

    TASK_WIDTH = 32

    config: Any
    encoder: VisionEncoder
    necks: nn.ModuleDict
    task_embedding: nn.Embedding | None

    def __init__(self, config: Any, *, encoder_from_checkpoint: bool = False, **kwargs: Any) -> None:  # noqa: ANN401
        """Build the policy.

        Args:
            config: The configuration, with input and output features filled in.
            encoder_from_checkpoint: Leave the encoder's weights to the checkpoint about to be loaded.
            **kwargs: What LeRobot's factory passes to every policy (`dataset_stats`, `dataset_meta`).

        Raises:
            UserError: No cameras; no state or action where the policy needs them; unknown encoder; weights
                unreachable; image size not divisible by the patch.
        """
        super().__init__(config, **kwargs)
        meta = kwargs.get("dataset_meta")  # lerobot-train's
        if meta is not None and not encoder_from_checkpoint and config.condition_on_task and len(meta.tasks) > 1:
            config.tasks = config.tasks or tuple(meta.tasks.index)
        config.validate_features()
        sizes = {key: feature.shape[-2:] for key, feature in config.image_features.items()}
        if config.encoder_image_size is None and not encoder_from_checkpoint:
            config.encoder_image_size = side_for_frames(config.encoder_name, sizes.values())
        self.encoder = VisionEncoder(
            EncoderConfig.from_prefixed(config),
            from_checkpoint=encoder_from_checkpoint,
            frame_size=next(iter(sizes.values()), None),
        )
        self._grids = {key: self.encoder.grid(*size) for key, size in sizes.items()}
        self.necks = nn.ModuleDict(
            {
                key.removeprefix(f"{OBS_IMAGES}.").replace(".", "_"): NECKS[config.neck](
                    self.encoder.width, grid, config.neck_width, *self._neck_shape()
                )
                for key, grid in self._grids.items()
            }
        )
        self.task_embedding = nn.Embedding(len(config.tasks), self.TASK_WIDTH) if config.tasks else None
        self._build_head()
        self.reset()

    @property
    def task_width(self) -> int:
        """Width E of what says the task; 0 for a policy of one."""
        return self.TASK_WIDTH if self.config.tasks else 0

    def task_features(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Return the embeddings (B, E) of the tasks of a batch; None from a policy of one task.

        Raises:
            UserError: The batch does not say the tasks, or one is none of the policy's.
        """
        if self.task_embedding is None:
            return None
        told = batch.get("task")
        if told is None:
            raise UserError(
                f"The policy does {len(self.config.tasks)} tasks and has to be told which: give batches a `task` "
                f"({self.config.tasks[0]!r}, …)."
            )
        if not isinstance(told, Tensor):
            sentences = [told] if isinstance(told, str) else told
            unknown = [sentence for sentence in sentences if sentence not in self.config.tasks]
            if unknown:
                raise UserError(
                    f"The policy was not trained on the task {unknown[0]!r}. {nearest_name(unknown[0], self.config.tasks)}"
                )
            places = [self.config.tasks.index(sentence) for sentence in sentences]
            told = torch.tensor(places, device=self.task_embedding.weight.device)
        return self.task_embedding(told)

    @property
    def reads_patches(self) -> bool:
        """Whether cached tokens need those of patches."""
        return NECKS[self.config.neck].reads_patches

    @abc.abstractmethod
    def _neck_shape(self) -> tuple[int, int | None]:
        """Return the number of tokens T of each camera and their width M; None hands out the neck's features."""

    @abc.abstractmethod
    def _build_head(self) -> None:
        """Make what reads the necks' tokens."""

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> Self:  # noqa: ANN401
        """Load a saved policy; its encoder weights come from the checkpoint, or from the file that it refers to."""
        return super().from_pretrained(pretrained_name_or_path, encoder_from_checkpoint=True, **kwargs)

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:  # noqa: ANN401
        """Load strictly: LeRobot's default would leave missing weights at their random values."""
        del strict
        folder = Path(model_file).parent
        environment = getattr(model.config.action_feature, "environment", None)
        if environment is not None:  # a rollout of LeRobot's in an environment that says what it is
            _check_features(model.config, folder, environment["features"])
            if (folder / RUN_FILE).is_file():
                check_world(
                    read_json(folder / RUN_FILE),
                    environment,
                    software_versions(),
                    f"The policy in {folder} was trained",
                )
        try:
            return super()._load_as_safetensor(model, model_file, map_location, True)
        except RuntimeError as error:
            _check_features(model.config, folder)
            raise UserError(
                f"{model_file} does not fit its own config.json ({str(error).splitlines()[0]}); the checkpoint "
                f"is incomplete or was edited."
            ) from error

    @abc.abstractmethod
    def loss_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms whose sum is the training loss, each a mean over the batch (scalar)."""

    @abc.abstractmethod
    def loss_weights(self, batch: dict[str, Tensor]) -> list[int]:
        """Return over how many numbers of the batch each of `loss_terms` is a mean.

        The loss of a batch that processes share is the sum of each term's weighted mean over the processes.
        """

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the training loss (scalar) and its terms, for images or cached tokens."""
        terms = self.loss_terms(batch)
        return torch.stack(list(terms.values())).sum(), {name: term.item() for name, term in terms.items()}

    def looks_at_next_observation(self) -> bool:
        """Tell whether the images that follow the action selected last will be looked at, now or as part of a history.

        Rollouts render only those.
        """
        return True

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, unless it is set: LeRobot asks at every action, and the walk takes milliseconds."""
        return self if mode == self.training else super().train(mode)

    def _get_default_peft_targets(self) -> dict[str, Any]:
        """Return the layers that LeRobot's `--peft` gives adapters: the encoder's too, where gradients reach it."""
        adapted = [
            name
            for name, module in self.named_modules()
            if not name.startswith("encoder.") and type(module) in (nn.Linear, nn.Conv1d)
        ]
        if self.config.encoder_mode == "finetune":
            ends = tuple(f".{target}" for target in self.config.encoder_lora_targets)
            adapted += [name for name, _ in self.encoder.named_modules(prefix="encoder") if name.endswith(ends)]
        return {"target_modules": adapted}

    def get_optim_params(self) -> list[Tensor]:  # type: ignore[override]
        """Return the trainable parameters: without the encoder's while it is frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def camera_tokens(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return each camera's neck tokens, (B, T, M) or (B, O, T, M), by image key.

        Raises:
            UserError: A camera is missing, or of another size than the policy was made for.
        """
        return {
            image_key: self._neck_tokens(batch, image_key, neck)
            for image_key, neck in zip(self._grids, self.necks.values(), strict=True)
        }

    def _neck_tokens(self, batch: dict[str, Tensor], image_key: str, neck: nn.Module) -> Tensor:
        cached = batch.get(tokens_key(image_key))
        source = batch.get(image_key) if cached is None else cached
        if source is None:
            raise UserError(f"The policy sees {image_key}, but the batch has neither it nor {tokens_key(image_key)}.")
        steps = source.shape[: source.ndim - (3 if cached is None else 2)]
        rows = source.flatten(0, len(steps) - 1)
        tokens = self._encode(rows, image_key) if cached is None else self._uncache(rows, image_key)
        if self.training and self.config.token_noise:
            tokens = EncoderTokens(*(_noisy(part, self.config.token_noise) for part in tokens))
        neck_tokens = neck(tokens)
        return neck_tokens if len(steps) == 1 else neck_tokens.unflatten(0, steps)

    def _encode(self, images_BCHW: Tensor, image_key: str) -> EncoderTokens:
        height, width = int(images_BCHW.shape[-2]), int(images_BCHW.shape[-1])
        if self.encoder.grid(height, width) != self._grids[image_key]:
            expected_height, expected_width = self.config.image_features[image_key].shape[-2:]
            raise UserError(
                f"{image_key} brings images of {height}×{width} px, but the policy was made for "
                f"{expected_height}×{expected_width} px; cameras may differ from each other, but each keeps its size."
            )
        return self.encoder(images_BCHW)

    def _uncache(self, tokens_BND: Tensor, image_key: str) -> EncoderTokens:
        h, w = self._grids[image_key]
        if not self.reads_patches and tuple(tokens_BND.shape[1:]) == (self.encoder.num_global, self.encoder.width):
            return EncoderTokens(tokens_BND, tokens_BND.new_empty(len(tokens_BND), 0, 0, self.encoder.width))
        expected = (self.encoder.num_global + h * w, self.encoder.width)
        if tuple(tokens_BND.shape[1:]) != expected:
            raise UserError(
                f"{tokens_key(image_key)} brings {tuple(tokens_BND.shape[1:])} (tokens, width), but the policy's "
                f"encoder gives {expected}: the cache was made by another encoder or image size."
            )
        return EncoderTokens.unflatten(tokens_BND, self.encoder.num_global, (h, w))


def _check_features(config: Any, checkpoint: Path, offered: Mapping[str, Any] | None = None) -> None:  # noqa: ANN401
    """Check that a policy gets the features that it was trained with; LeRobot replaces some in its config by those it has.

    Args:
        config: The policy's, with what LeRobot put in.
        checkpoint: Its folder.
        offered: Features of the environment, some perhaps by names that LeRobot changes before the policy sees them; None: the
            config's.

    Raises:
        UserError: A feature is not there, or of another shape.
    """
    try:
        content = json.loads((checkpoint / "config.json").read_bytes())
        trained = {key: feature["shape"] for part in _FEATURES for key, feature in content[part].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return
    found = offered or {**config.input_features, **config.output_features}
    shapes = {key: list(feature.shape) for key, feature in found.items()}
    compared = trained.keys() & shapes.keys() if offered else {**trained, **shapes}
    differing = [key for key in compared if trained.get(key) != shapes.get(key)]
    if differing:
        said = "; ".join(
            f"{key} is {_or_nothing(shapes.get(key))}, in training {_or_nothing(trained.get(key))}" for key in differing
        )
        what = "this environment" if offered else "this environment or dataset"
        raise UserError(f"The policy in {checkpoint} does not fit {what}: {said}. Give what it was trained for.")


def _or_nothing(shape: list[int] | None) -> str:
    return "not there" if shape is None else f"of shape {tuple(shape)}"


def _noisy(tokens_BND: Tensor, strength: float) -> Tensor:
    """Add noise in proportion to each number's deviation over the batch; tokens may have any axes after B."""
    deviation_1ND = tokens_BND.detach().std(dim=0, correction=min(1, len(tokens_BND) - 1), keepdim=True)
    return tokens_BND + strength * deviation_1ND * torch.randn_like(tokens_BND)


def mean_within_episodes(errors_BHA: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return the mean (scalar) over the actions that are not padding past the end of an episode."""
    valid_BH1 = ~batch["action_is_pad"].unsqueeze(-1)
    return (errors_BHA * valid_BH1).sum() / (valid_BH1.sum() * errors_BHA.shape[-1]).clamp_min(1)
