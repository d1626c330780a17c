"""Labelled frames that probes are fitted and judged on.

Shape letters: N frames, H and W pixels, R rows and columns of the label grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pixio_robot.common.errors import UserError

LABEL_GRID = 32  # rows and columns of depth and class labels, whatever an encoder's patch grid
MAX_DEPTH = 10.0  # metres; what lies beyond (the sky of a scene) has no depth to predict
_TRAINING, _VALIDATION = 0.6, 0.15  # shares of the groups; the rest is for testing


class LabelledFrame(Protocol):
    """A frame as a simulator labels it; `lerobot_env_pixio.scenes.SceneSample` is one.

    Poses (A, 4, 4) and positions (O, 3) are in the camera frame, in metres; the first of each is probed.
    """

    frame: np.ndarray
    depth: np.ndarray
    segmentation: np.ndarray
    gripper_poses: np.ndarray
    object_positions: np.ndarray
    focal_length: float


@dataclass(frozen=True)
class ProbeScenes:
    """Frames with what a simulator knows about them; camera frames have x right, y down, z forward.

    Attributes:
        frames_NHWC: uint8.
        depth_NHW: float32, metres along the camera's axis.
        classes_NHW: int64, indices into `class_names`.
        gripper_position_N3: float32, metres, in the camera frame; NaN where there is none.
        gripper_rotation_N33: float32, gripper axes as columns, in the camera frame; NaN where there is none.
        object_position_N3: float32, metres, in the camera frame; NaN where there is none.
        group_N: int64; frames that share a look or an episode share a group, which is never split.
        class_names: Names of the classes.
    """

    frames_NHWC: Tensor
    depth_NHW: Tensor
    classes_NHW: Tensor
    gripper_position_N3: Tensor
    gripper_rotation_N33: Tensor
    object_position_N3: Tensor
    group_N: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse frames whose size the label grid does not divide."""
        height, width = self.depth_NHW.shape[1:]
        if height % LABEL_GRID or width % LABEL_GRID:
            raise UserError(
                f"Frames of {height}×{width} px cannot be labelled on a grid of {LABEL_GRID}×{LABEL_GRID}: "
                f"render them with image_size a multiple of {LABEL_GRID}."
            )

    def on_grid(self, values_NHW: Tensor) -> Tensor:
        """Take the value at the centre of every cell of the label grid: (N, H, W) → (N, R, R)."""
        height, width = (side // LABEL_GRID for side in values_NHW.shape[1:])
        return values_NHW[:, height // 2 :: height, width // 2 :: width]


def labelled_scenes(samples: Sequence[LabelledFrame], groups: Sequence[int], class_names: Sequence[str]) -> ProbeScenes:
    """Collect labelled frames; what lies outside of the picture has no place to be found.

    Args:
        samples: Frames of one size.
        groups: Which frames share a look or an episode.
        class_names: Names of the values of the segmentation.
    """
    poses_N44 = np.stack([_first_in_view(sample, sample.gripper_poses, (4, 4)) for sample in samples])
    objects_N3 = np.stack([_first_in_view(sample, sample.object_positions, (3,)) for sample in samples])
    return ProbeScenes(
        frames_NHWC=torch.from_numpy(np.stack([sample.frame for sample in samples])),
        depth_NHW=torch.from_numpy(np.stack([sample.depth for sample in samples])),
        classes_NHW=torch.from_numpy(np.stack([sample.segmentation for sample in samples])).long(),
        gripper_position_N3=torch.from_numpy(poses_N44[:, :3, 3]),
        gripper_rotation_N33=torch.from_numpy(poses_N44[:, :3, :3]),
        object_position_N3=torch.from_numpy(objects_N3),
        group_N=torch.tensor(groups),
        class_names=tuple(class_names),
    )


def _first_in_view(sample: LabelledFrame, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the first pose or position as float32, NaN where there is none or the camera does not see its place."""
    if len(values):
        place = values[0][:3, 3] if len(shape) == 2 else values[0]
        half = len(sample.frame) / 2 / sample.focal_length  # of the view, at a distance of one
        if place[2] > 0 and np.abs(place[:2]).max() < half * place[2]:
            return values[0].astype(np.float32)
    return np.full(shape, np.nan, np.float32)


class Split(NamedTuple):
    """Indices of frames to fit on, to choose the regularisation with, and to report."""

    training: Tensor
    validation: Tensor
    test: Tensor


def split_groups(group_N: Tensor, seed: int) -> Split:
    """Share groups out at random, 60 % for training, 15 % for validation and 25 % for testing.

    Raises:
        UserError: There are too few groups.
    """
    groups, member_N = group_N.unique(return_inverse=True)
    if len(groups) < 8:
        raise UserError(f"{len(groups)} groups of scenes are too few to fit and test a probe: render more frames.")
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
    place_N = order.argsort()[member_N] / len(groups)
    validation_N = (place_N >= _TRAINING) & (place_N < _TRAINING + _VALIDATION)
    test_N = place_N >= _TRAINING + _VALIDATION
    return Split(*(mask.nonzero()[:, 0] for mask in (~(validation_N | test_N), validation_N, test_N)))
