"""Two views as rays, depths and poses, and the points that they make.

Cameras are OpenCV's: x right, y down, z forward; pixel (u, v) has its centre at (u, v). Poses take points of a camera to the
frame of view 0; quaternions are wxyz.

Shape letters: B pairs, V views, h and w grid of points.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Geometry(NamedTuple):
    """What is to be told of pairs, or was told."""

    rays_BVhw3: Tensor
    """Unit directions, in the camera's frame."""
    distance_BVhw: Tensor
    """Along the ray."""
    quaternion_BV4: Tensor
    """Unit, of the camera's pose in view 0's frame."""
    translation_BV3: Tensor
    """Of the camera's pose in view 0's frame."""
    known_BVhw: Tensor
    """bool, where there is a depth to compare with."""

    @property
    def camera_points(self) -> Tensor:
        """Points (B, V, h, w, 3) in each camera's frame."""
        return self.rays_BVhw3 * self.distance_BVhw[..., None]

    @property
    def world_points(self) -> Tensor:
        """Points (B, V, h, w, 3) in view 0's frame."""
        rotation_BV33 = rotation_matrix(self.quaternion_BV4)
        turned = torch.einsum("bvij,bvhwj->bvhwi", rotation_BV33, self.camera_points)
        return turned + self.translation_BV3[:, :, None, None]

    def in_view_0(self) -> "Geometry":
        """Return the same in the frame of view 0 as its pose says."""
        rotation_BV33 = rotation_matrix(self.quaternion_BV4)
        back_B133 = rotation_BV33[:, :1].transpose(-1, -2)
        shift_BV3 = self.translation_BV3 - self.translation_BV3[:, :1]
        return self._replace(
            quaternion_BV4=quaternion(back_B133 @ rotation_BV33),
            translation_BV3=(back_B133 @ shift_BV3[..., None])[..., 0],
        )


def mean_distance(world_BVhw3: Tensor, known_BVhw: Tensor) -> Tensor:
    """Return the mean distance (B,) of a pair's known points from view 0, over both views."""
    weights = known_BVhw.float()
    return (world_BVhw3.norm(dim=-1) * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp(min=1)


def pinhole_rays(u: Tensor, v: Tensor, intrinsics: Tensor) -> Tensor:
    """Return the unit rays (..., 3) through pixels.

    Args:
        u: Columns (...), in pixels.
        v: Rows (...), in pixels.
        intrinsics: Focal lengths and principal point fx, fy, cx, cy (4,), in pixels.
    """
    fx, fy, cx, cy = intrinsics.unbind()
    return functional.normalize(torch.stack([(u - cx) / fx, (v - cy) / fy, torch.ones_like(u)], dim=-1), dim=-1)


def relative_poses(pose_BV44: Tensor) -> Tensor:
    """Return poses (B, V, 4, 4) in the frame of view 0 for poses in any one frame."""
    rotation_B133 = pose_BV44[:, :1, :3, :3].transpose(-1, -2)
    relative = pose_BV44.clone()
    relative[..., :3, :3] = rotation_B133 @ pose_BV44[..., :3, :3]
    shift = pose_BV44[..., :3, 3:] - pose_BV44[:, :1, :3, 3:]
    relative[..., :3, 3:] = rotation_B133 @ shift
    return relative


def rotation_matrix(quaternion_4: Tensor) -> Tensor:
    """Return the rotations (..., 3, 3) of unit quaternions (..., 4), wxyz."""
    w, x, y, z = quaternion_4.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quaternion(rotation_33: Tensor) -> Tensor:
    """Return unit quaternions (..., 4), wxyz with w ≥ 0, of rotations (..., 3, 3); no gradient goes through."""
    from scipy.spatial.transform import Rotation  # takes long to import

    flat = rotation_33.detach().reshape(-1, 3, 3).double().cpu().numpy()
    found = Rotation.from_matrix(flat).as_quat(canonical=True, scalar_first=True)
    return torch.from_numpy(found).to(rotation_33).reshape(*rotation_33.shape[:-2], 4)


def rotation_angle(a_33: Tensor, b_33: Tensor) -> Tensor:
    """Return the angle (...) in radians between rotations (..., 3, 3)."""
    # The chord keeps its precision where the cosine has none.
    chord = (a_33 - b_33).flatten(-2).norm(dim=-1) / (2 * 2**0.5)
    return 2 * torch.asin(chord.clamp(max=1))


def angle_between(a_3: Tensor, b_3: Tensor) -> Tensor:
    """Return the angle (...) in radians between vectors (..., 3); a right angle where one of them is zero."""
    return torch.atan2(torch.linalg.cross(a_3, b_3).norm(dim=-1), (a_3 * b_3).sum(-1)).where(
        (a_3.norm(dim=-1) > 0) & (b_3.norm(dim=-1) > 0), torch.pi / 2
    )
