"""Which encoder a policy or a probe stands on, as settings: read without torch."""

from typing import Literal

from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Positive, Switch, Text, settings

Mode = Literal["frozen", "finetune", "lora"]


def is_pretrained(weights: str) -> bool:
    """Tell published weights, of whichever revision, from random ones and files."""
    return weights.partition("@")[0] == "pretrained"


@settings
class EncoderConfig:
    """Which encoder, with which weights, in which mode."""

    name: Text = "pixio_tiny16"
    """A timm model name (the Pixio variants are registered on import), or `torchscript`."""
    weights: Text = "pretrained"
    """`pretrained` (shipped, or the hub's branch main, whose commit is said and kept in checkpoints), `pretrained@<revision>` of
    the hub, `random`, or the path of a weights (or TorchScript) file."""
    mode: Mode = "frozen"
    """`frozen`: evaluation mode and no gradients; `finetune`: all weights train; `lora`: frozen, with low-rank adapters that
    train."""
    image_size: Count | None = None
    """Longer side in pixels to resize camera frames to, their aspect kept; null keeps the camera's size, or, where policies
    are trained on larger frames, takes the encoder's own."""
    lora_rank: Count = 8
    """Rank of the adapters."""
    lora_alpha: Positive = 16.0
    """The adapters' scale is alpha / rank."""
    lora_targets: tuple[Text, ...] = ("attn.qkv", "attn.proj")
    """Ends of the names of the layers that get an adapter; for resnet18 for example [conv1,conv2]."""
    self_contained: Switch = False
    """Keep the frozen weights of a weights file in every checkpoint, instead of their name and hash."""

    def __post_init__(self) -> None:
        """Check that a TorchScript encoder has a file.

        Raises:
            UserError: It has none.
        """
        if self.name == "torchscript" and (self.weights == "random" or is_pretrained(self.weights)):
            raise UserError(
                "encoder.weights must be given: the file of a TorchScript encoder, written by torch.jit.save."
            )

    @classmethod
    def from_prefixed(cls, fields: object) -> "EncoderConfig":
        """Read the attributes `encoder_name`, `encoder_weights`, … of a policy's config; those absent keep defaults."""
        names = [name for name in cls.__dataclass_fields__ if hasattr(fields, f"encoder_{name}")]
        return cls(**{name: getattr(fields, f"encoder_{name}") for name in names})
