"""timm's models by name: built for the frames that they will see, and where the tokens stand in what they return.

Shape letters: B batch, N tokens, D width, H and W image size, h and w patch-grid size.
"""

import contextlib
import functools
import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.encoders.checkpoints import load_encoder_weights
from pixio_robot.encoders.config import is_pretrained
from pixio_robot.encoders.hub import pretrained_weights
from pixio_robot.encoders.pixels import PIXELS, RawPixels
from pixio_robot.encoders.pixio import PRETRAINABLE
from pixio_robot.encoders.torchscript import TORCHSCRIPT, finest_grid

Size = tuple[int, int]
"""Height and width in pixels."""

_MOST_PIXELS = 256  # of a transformer's longer side, whatever it was trained on, unless the user says more
_MUCH_LARGER = 2  # times the own size: what somebody renders a little larger is meant to be seen so


def build_backbone(name: str, weights: str, size: Size | None = None) -> nn.Module:
    """Create a timm backbone without classification head and load its weights.

    Args:
        name: A timm model name, Pixio variants included.
        weights: `pretrained`, `pretrained@<revision>`, `random`, or the path of a weights file.
        size: Of the images it will see, for networks that are built for one size, as Swin is; None takes timm's size.

    Raises:
        UserError: Unknown name; timm cannot build it for this size; weights unreachable; weights that do not fit.
    """
    if not _is_known(name):
        raise UserError(f"Unknown encoder {name!r}. {nearest_name(name, _known_names(name))}")
    if size is not None:
        layout(name, size, size)  # says why not
    backbone = timm.create_model(name, pretrained=False, num_classes=0, **_arguments(name, size))
    if isinstance(backbone, RawPixels):
        return backbone
    if is_pretrained(weights):
        load_encoder_weights(backbone, pretrained_weights(name, weights), name)
    elif weights != "random":
        load_encoder_weights(backbone, Path(weights).expanduser(), name)
    return backbone


class Layout(NamedTuple):
    """How a backbone's features are read."""

    num_prefix: int
    """Tokens before those of the patches; a network without them has 0."""
    grid: tuple[int, int]
    """Rows and columns of patches, h and w."""
    channels_last: bool
    """Whether a map is (B, h, w, D) rather than (B, D, h, w)."""

    def patches(self, features: Tensor) -> Tensor:
        """Return the patch tokens (B, h, w, D) of what `forward_features` gave."""
        if features.ndim == 4:
            return features if self.channels_last else features.permute(0, 2, 3, 1)
        return features[:, self.num_prefix :].unflatten(1, self.grid)


def patch_layout(backbone: nn.Module, name: str, size: Size) -> Layout:
    """Say how the features of a transformer are to be read that takes any size which its patches divide.

    Raises:
        UserError: They do not divide it.
    """
    model: Any = backbone
    height, width = size
    reduction = patch_side(backbone)
    assert reduction is not None
    if height % reduction or width % reduction:
        smaller = max(height // reduction, 1) * reduction
        raise UserError(
            f"Images of {height}×{width} px do not fit {name}: both sides must be divisible by {reduction}; "
            f"set encoder.image_size={smaller}, or render with env.image_size={smaller}."
        )
    return Layout(model.num_prefix_tokens, (height // reduction, width // reduction), False)


def patch_side(backbone: nn.Module) -> int | None:
    """Return the side in pixels of the patches of a network that takes any number of them; None of another."""
    model: Any = backbone
    return int(model.feature_info[-1]["reduction"]) if takes_any_size(backbone) else None


def takes_any_size(backbone: nn.Module) -> TypeGuard[VisionTransformer | RawPixels]:
    """Tell whether `patch_layout` is about a backbone."""
    return isinstance(backbone, VisionTransformer | RawPixels)


def side_for_frames(name: str, sizes: Collection[Size]) -> int | None:
    """Choose `image_size` for frames of cameras: the encoder's own size where they are much larger, or do not fit it.

    Frames of 480×640 px as they are would be 1,200 patches of 16 px, from which a policy learns slowly and no better.

    Args:
        name: The encoder's name.
        sizes: Heights and widths of the frames.

    Returns:
        None for frames that are taken as they are, and where the encoder's own size is unknown.
    """
    if name == TORCHSCRIPT or not _is_known(name) or not sizes:
        return None
    patch, longest = patch_side(_on_meta(name, None)), max(max(size) for size in sizes)
    native = max(_native_size(name))
    if patch is None:
        return native if longest > _MUCH_LARGER * native else None
    native = min(native, _MOST_PIXELS)
    fits = all(side % patch == 0 for size in sizes for side in size)
    return None if fits and longest <= _MUCH_LARGER * native else min(native, longest) // patch * patch


def layout(name: str, size: Size, built_for: Size | None) -> Layout:
    """Say how a timm model's features are to be read for images of a size, by a run without numbers.

    Args:
        name: The model's name.
        size: Of the images.
        built_for: What `build_backbone` got.

    Raises:
        UserError: The network does not take images of this size, or gives neither tokens nor a map; says what it takes.
    """
    model: Any = _on_meta(name, built_for)
    if takes_any_size(model):
        return patch_layout(model, name, size)
    try:
        with torch.no_grad(), torch.device("meta"):
            features = model.eval().forward_features(torch.zeros(1, 3, *size))
    except Exception as error:  # whatever a model's own code raises for a size that it does not take
        raise UserError(_does_not_fit(name, size, built_for, error)) from error
    return _read_layout(name, model, features, size)


def _read_layout(name: str, model: Any, features: object, size: Size) -> Layout:  # noqa: ANN401
    if isinstance(features, Tensor) and model.num_features in features.shape[1:]:
        if features.ndim == 4:
            _, first, middle, last = features.shape
            channels_last = last == model.num_features and (first != last or getattr(model, "output_fmt", "") == "NHWC")
            return Layout(0, (first, middle) if channels_last else (middle, last), channels_last)
        num_prefix = getattr(model, "num_prefix_tokens", None)
        if features.ndim == 3 and features.shape[2] == model.num_features:
            grid = finest_grid(features.shape[1] - (num_prefix or 0), *size)
            if grid is not None:
                return Layout(features.shape[1] - grid[0] * grid[1], grid, False)
    found = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else f"a {type(features).__name__}"
    raise UserError(
        f"{name} gives {found} for images (1, 3, {size[0]}, {size[1]}); an encoder gives tokens (B, N, {model.num_features}), "
        f"one for each square patch, or a map: choose another timm model."
    )


def _does_not_fit(name: str, size: Size, built_for: Size | None, error: Exception) -> str:
    height, width = size
    native = _native_size(name)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    sizes = [native]
    if built_for != size and height == width:
        with contextlib.suppress(UserError):
            layout(name, size, size)
            sizes = [size, native]
    choices = " or ".join(f"encoder.image_size={side}" for side, _ in sizes)
    return f"{name} does not take images of {height}×{width} px, says timm ({reason}): set {choices}."


def _native_size(name: str) -> Size:
    if name == PIXELS:
        return _MOST_PIXELS, _MOST_PIXELS
    stated: Any = timm.get_pretrained_cfg(name)
    _, height, width = stated.input_size
    return height, width


def _arguments(name: str, size: Size | None) -> dict[str, Any]:
    """Return what timm must be told so that a model takes images of any size, or else of the given one."""
    kind = _model_class(name)
    accepted = inspect.signature(kind.__init__).parameters
    if issubclass(kind, VisionTransformer) or "dynamic_img_size" in accepted:
        return {"dynamic_img_size": True}
    return {"img_size": size} if size is not None and "img_size" in accepted else {}


def _on_meta(name: str, size: Size | None) -> nn.Module:
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, num_classes=0, **_arguments(name, size))
    except Exception as error:
        assert size is not None, f"timm cannot build {name}"
        raise UserError(_does_not_fit(name, size, size, error)) from error


@functools.cache
def _model_class(name: str) -> type[nn.Module]:
    with torch.device("meta"):
        return type(timm.create_model(name, pretrained=False))


def _is_known(name: str) -> bool:
    """Tell whether timm has a model, and the weights that a tag behind it names."""
    return timm.is_model(name) and ("." not in name or name in timm.list_models(name, pretrained=True))


def _known_names(name: str) -> list[str]:
    """A model's tagged weights; else Pixio names always, and other names only when they start alike: timm has many."""
    architecture, dot, _ = name.partition(".")
    if dot and timm.is_model(architecture):
        return [architecture, *timm.list_models(f"{architecture}.*", pretrained=True)]
    return [*PRETRAINABLE, *timm.list_models(f"{name[:5]}*")[:5]]
