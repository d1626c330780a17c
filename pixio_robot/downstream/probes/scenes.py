"""Labelled frames that probes are fitted and judged on, and how they are split.

Shape letters: N frames, H and W pixels, R rows and columns of the label grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.scenes import Scenes

LABEL_GRID = 32  # rows and columns of depth and class labels, whatever an encoder's patch grid
MAX_DEPTH = 10.0  # metres; what lies beyond (the sky of a scene) has no depth to predict
_TRAINING, _VALIDATION = 0.6, 0.15  # shares of the groups; the rest is for testing


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

    @classmethod
    def of(cls, scenes: Scenes, class_names: Sequence[str]) -> "ProbeScenes":
        """Read rendered scenes into memory."""
        pose_N44 = torch.from_numpy(scenes.gripper_pose_N44.copy())
        return cls(
            frames_NHWC=torch.from_numpy(scenes.frames_NHWC.copy()),
            depth_NHW=torch.from_numpy(scenes.depth_NHW.copy()),
            classes_NHW=torch.from_numpy(scenes.segmentation_NHW.copy()).long(),
            gripper_position_N3=pose_N44[:, :3, 3],
            gripper_rotation_N33=pose_N44[:, :3, :3],
            object_position_N3=torch.from_numpy(scenes.object_position_N3.copy()),
            group_N=torch.from_numpy(scenes.group_N.copy()),
            class_names=tuple(class_names),
        )

    def on_grid(self, values_NHW: Tensor) -> Tensor:
        """Take the value at the centre of every cell of the label grid: (N, H, W) → (N, R, R)."""
        height, width = (side // LABEL_GRID for side in values_NHW.shape[1:])
        return values_NHW[:, height // 2 :: height, width // 2 :: width]


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
