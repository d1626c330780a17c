"""Frames in other light, with other surfaces and slightly shifted: what a policy shall not depend on.

Changes are drawn for every few steps of an episode and fade from one to the next: a history of frames stays nearly
consistent, one episode shows many changes, and a frame's change does not depend on the batch it is in.

Shape letters: B frames, C channels, H and W pixels, K pixels of a kernel's side.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pixio_robot.images.augment import ColourChanges, Photometric, Range, change_photometrically, draw_changes
from pixio_robot.images.surfaces import KERNEL_SIDES, convolve, draw_kernel, draw_pattern


@dataclass(frozen=True)
class Augmentation:
    """How far copies differ from their frames."""

    photometric: Photometric
    laid_over: tuple[str, ...]
    """What is laid over frames, ``convolution`` or ``pattern``: one for an episode, in turn over episodes and over copies."""
    convolution: Range
    """Weight of the frame after a random convolution."""
    kernel_sides: tuple[int, ...]
    """Sides of the convolutions' kernels, in pixels, ascending and odd."""
    overlay: Range
    """Weight of random patterns."""
    shift: float
    """Largest shift up, down, left or right, as a share of the side; border pixels are repeated."""
    steps: int
    """Steps from one draw to the next."""


# Colours vary less than in pretraining: the policy must still tell objects apart. Shifts as in D. Yarats et al. 2020,
# "Image augmentation is all you need", arXiv 2004.13649: 4 of 84 px.
AUGMENTATION = Augmentation(
    Photometric(
        probability=1.0,
        brightness=(0.2, 1.5),
        channel_gain=(0.7, 1.3),
        contrast=(0.6, 1.4),
        saturation=(0.5, 1.5),
        hue=0.05,
        grey=0.0,
    ),
    laid_over=("convolution", "pattern"),
    convolution=(0.0, 1.0),
    kernel_sides=KERNEL_SIDES,
    overlay=(0.0, 0.6),
    shift=4 / 84,
    steps=8,
)


class _Change(NamedTuple):
    """A drawn change; numbers of two changes can be mixed."""

    colours: ColourChanges  # of one frame
    shift_12: Tensor  # down and right, pixels, not rounded
    weight_1111: Tensor  # of what is laid over the frame
    kernel_133KK: Tensor | None  # what is laid over is the frame after this convolution,
    pattern_1CHW: Tensor | None  # or this


def augment(images_BCHW: Tensor, episodes: Sequence[int], steps: Sequence[int], copy: int, stream: str) -> Tensor:
    """Return frames in other light, with other surfaces and slightly shifted.

    Args:
        images_BCHW: Frames in [0, 1].
        episodes: The episode of each frame.
        steps: The step of each frame in its episode.
        copy: Number of the copy, from 1.
        stream: Names an independent sequence of changes.
    """
    size = (int(images_BCHW.shape[-2]), int(images_BCHW.shape[-1]))
    drawn: dict[tuple[int, int], _Change] = {}

    def laid_over(episode: int) -> str:
        return AUGMENTATION.laid_over[(copy - 1 + episode) % len(AUGMENTATION.laid_over)]

    def change(episode: int, draw: int) -> _Change:
        if (episode, draw) not in drawn:
            convolves = laid_over(episode) == "convolution"
            drawn[episode, draw] = _draw(f"{stream} {copy} {episode} {draw}", convolves, size)
        return drawn[episode, draw]

    changed_BCHW = torch.empty_like(images_BCHW)
    for kind in AUGMENTATION.laid_over:
        rows = [row for row, episode in enumerate(episodes) if laid_over(episode) == kind]
        if not rows:
            continue
        changes = []
        for row in rows:
            draw, since = divmod(steps[row], AUGMENTATION.steps)
            both = (change(episodes[row], draw), change(episodes[row], draw + 1))
            changes.append(_mixed(*both, since / AUGMENTATION.steps))
        of_kind = _joined(changes)
        looks_BCHW = change_photometrically(_lay_over(images_BCHW[rows], of_kind), of_kind.colours)
        changed_BCHW[rows] = _shift(looks_BCHW, of_kind.shift_12.round().long().to(images_BCHW.device))
    return changed_BCHW


def _draw(seed: str, convolves: bool, size: tuple[int, int]) -> _Change:
    digest = hashlib.sha256(seed.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    limits = AUGMENTATION.convolution if convolves else AUGMENTATION.overlay
    reach_2 = torch.tensor([AUGMENTATION.shift * side for side in size])
    return _Change(
        colours=draw_changes(1, AUGMENTATION.photometric, generator),
        shift_12=reach_2 * (2 * torch.rand(1, 2, generator=generator) - 1),
        weight_1111=torch.empty(1, 1, 1, 1).uniform_(*limits, generator=generator),
        kernel_133KK=draw_kernel(AUGMENTATION.kernel_sides, generator) if convolves else None,
        pattern_1CHW=None if convolves else draw_pattern(size, generator),
    )


def _mixed(before: _Change, after: _Change, share: float) -> _Change:
    """Return the change a share of the way from one to the other."""

    def mix(one: Tensor, other: Tensor) -> Tensor:
        return torch.lerp(one, other, share)

    def mix_any(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        return None if one is None or other is None else mix(one, other)

    return _Change(
        colours=ColourChanges(*(mix(one, other) for one, other in zip(before.colours, after.colours, strict=True))),
        shift_12=mix(before.shift_12, after.shift_12),
        weight_1111=mix(before.weight_1111, after.weight_1111),
        kernel_133KK=mix_any(before.kernel_133KK, after.kernel_133KK),
        pattern_1CHW=mix_any(before.pattern_1CHW, after.pattern_1CHW),
    )


def _joined(changes: Sequence[_Change]) -> _Change:
    """Join changes of one frame each along the batch."""
    kernels = [change.kernel_133KK for change in changes if change.kernel_133KK is not None]
    patterns = [change.pattern_1CHW for change in changes if change.pattern_1CHW is not None]
    return _Change(
        colours=ColourChanges(*(torch.cat([change.colours[part] for change in changes]) for part in range(2))),
        shift_12=torch.cat([change.shift_12 for change in changes]),
        weight_1111=torch.cat([change.weight_1111 for change in changes]),
        kernel_133KK=torch.cat(kernels) if kernels else None,
        pattern_1CHW=torch.cat(patterns) if patterns else None,
    )


def _lay_over(images_BCHW: Tensor, changes: _Change) -> Tensor:
    device = images_BCHW.device
    weight_B111 = changes.weight_1111.to(device)
    if changes.pattern_1CHW is not None:
        return torch.lerp(images_BCHW, changes.pattern_1CHW.to(device), weight_B111)
    assert changes.kernel_133KK is not None
    return torch.lerp(images_BCHW, convolve(images_BCHW, changes.kernel_133KK.to(device)), weight_B111).clamp(0, 1)


def _shift(images_BCHW: Tensor, shifts_B2: Tensor) -> Tensor:
    """Move images down and right by whole pixels, repeating the border."""
    height, width = images_BCHW.shape[-2:]
    device = images_BCHW.device
    rows_BH = (torch.arange(height, device=device) - shifts_B2[:, :1]).clamp(0, height - 1)
    columns_BW = (torch.arange(width, device=device) - shifts_B2[:, 1:]).clamp(0, width - 1)
    frames_B11 = torch.arange(len(images_BCHW), device=device)[:, None, None]
    return images_BCHW.permute(0, 2, 3, 1)[frames_B11, rows_BH[:, :, None], columns_BW[:, None]].permute(0, 3, 1, 2)
