"""Other light and small shifts of frames, the same whenever an episode and its copy are asked for.

Shape letters: B frames, C channels, H and W pixels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pixio_robot.pretraining.augment import ColourChanges, Photometric, change_photometrically, draw_changes


@dataclass(frozen=True)
class Augmentation:
    """How far copies differ from their frames."""

    photometric: Photometric
    shift: float
    """Largest shift up, down, left or right, as a share of the side; border pixels are repeated."""


# Light changes milder than in pretraining: the policy must still tell the objects apart. Shifts as in D. Yarats et
# al. 2020, "Image augmentation is all you need", arXiv 2004.13649: 4 of 84 px.
AUGMENTATION = Augmentation(
    Photometric(
        probability=1.0,
        brightness=(0.4, 1.4),
        channel_gain=(0.8, 1.2),
        contrast=(0.7, 1.3),
        saturation=(0.5, 1.5),
        hue=0.05,
        grey=0.0,
    ),
    shift=4 / 84,
)


def augment(images_BCHW: Tensor, episodes: Sequence[int], stream: str) -> Tensor:
    """Return frames in other light and slightly shifted, all frames of an episode alike.

    A history of frames thus stays consistent, and a change depends on the episode and not on the batch.

    Args:
        images_BCHW: Frames in [0, 1].
        episodes: The episode of each frame.
        stream: Names an independent sequence of changes.
    """
    size = (int(images_BCHW.shape[-2]), int(images_BCHW.shape[-1]))
    drawn = {episode: _draw(episode, stream, size) for episode in set(episodes)}
    changes = ColourChanges(*(torch.cat([drawn[episode][0][part] for episode in episodes]) for part in range(2)))
    shifts_B2 = torch.stack([drawn[episode][1] for episode in episodes]).to(images_BCHW.device)
    return _shift(change_photometrically(images_BCHW, changes), shifts_B2)


def _draw(episode: int, stream: str, size: tuple[int, int]) -> tuple[ColourChanges, Tensor]:
    """Draw the change of an episode: colours, and the shift down and right in pixels (2,)."""
    seed = hashlib.sha256(f"{stream} {episode}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(seed[:8], "little", signed=True))
    changes = draw_changes(1, AUGMENTATION.photometric, generator)
    reach = torch.tensor([round(AUGMENTATION.shift * side) for side in size])
    return changes, (torch.rand(2, generator=generator) * (2 * reach + 1)).long() - reach


def _shift(images_BCHW: Tensor, shifts_B2: Tensor) -> Tensor:
    """Move images down and right by whole pixels, repeating the border."""
    height, width = images_BCHW.shape[-2:]
    device = images_BCHW.device
    rows_BH = (torch.arange(height, device=device) - shifts_B2[:, :1]).clamp(0, height - 1)
    columns_BW = (torch.arange(width, device=device) - shifts_B2[:, 1:]).clamp(0, width - 1)
    frames_B11 = torch.arange(len(images_BCHW), device=device)[:, None, None]
    return images_BCHW.permute(0, 2, 3, 1)[frames_B11, rows_BH[:, :, None], columns_BW[:, None]].permute(0, 3, 1, 2)
