"""Rays, poses, losses and metrics against formulas that are written out here, and against a real calibrated pair."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage import data

from pixio_robot.downstream.two_view.geometry import (
    Geometry,
    mean_distance,
    pinhole_rays,
    quaternion,
    relative_poses,
    rotation_angle,
    rotation_matrix,
)
from pixio_robot.downstream.two_view.losses import Prediction, in_log_space, robust, two_view_loss
from pixio_robot.downstream.two_view.metrics import METRICS, pair_errors, per_pair_auc, values_of

PAIRS, SIDE = 5, 4


def random_geometry(seed: int, known: float = 0.8) -> Geometry:
    rng = np.random.default_rng(seed)
    rays = rng.normal(size=(PAIRS, 2, SIDE, SIDE, 3)) + [0, 0, 4]
    rotations = Rotation.from_rotvec(rng.normal(0, 0.3, (2 * PAIRS, 3))).as_quat(canonical=True, scalar_first=True)
    turns, ways = rotations.reshape(PAIRS, 2, 4), rng.normal(size=(PAIRS, 2, 3))
    turns[:, 0], ways[:, 0] = [1, 0, 0, 0], 0
    return Geometry(
        torch.tensor(rays / np.linalg.norm(rays, axis=-1, keepdims=True)).float(),
        torch.tensor(rng.uniform(0.5, 3, (PAIRS, 2, SIDE, SIDE))).float(),
        torch.tensor(turns).float(),
        torch.tensor(ways).float(),
        torch.tensor(rng.random((PAIRS, 2, SIDE, SIDE)) < known),
    )


def told(geometry: Geometry, scale: float = 1.0, confidence: float = 2.0) -> Prediction:
    shape = geometry.known_BVhw.shape
    return Prediction(geometry, torch.full(shape, confidence), torch.zeros(shape), torch.full((PAIRS,), scale))


def rescaled(geometry: Geometry, factor: float) -> Geometry:
    distance, way = factor * geometry.distance_BVhw, factor * geometry.translation_BV3
    return geometry._replace(distance_BVhw=distance, translation_BV3=way)


def moved(geometry: Geometry, rotation: Rotation, shift: np.ndarray) -> Geometry:
    """Tell the same of pairs in another frame than view 0's."""
    turn = torch.tensor(rotation.as_matrix()).float()
    return geometry._replace(
        quaternion_BV4=quaternion(turn @ rotation_matrix(geometry.quaternion_BV4)),
        translation_BV3=geometry.translation_BV3 @ turn.T + torch.tensor(shift).float(),
    )


def test_rotations_are_scipys() -> None:
    turns = Rotation.random(50, rng=0)
    quaternions = torch.tensor(turns.as_quat(canonical=True, scalar_first=True))
    matrices = torch.tensor(turns.as_matrix())
    torch.testing.assert_close(rotation_matrix(quaternions), matrices)
    torch.testing.assert_close(quaternion(matrices), quaternions)
    angles = rotation_angle(matrices[:-1], matrices[1:]).numpy()
    np.testing.assert_allclose(angles, (turns[:-1].inv() * turns[1:]).magnitude(), rtol=1e-6)


def test_world_points_are_those_of_the_cameras_in_view_0() -> None:
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (3, 2, 1, 1))
    poses[..., :3, :3] = Rotation.random(6, rng=rng).as_matrix().reshape(3, 2, 3, 3)
    poses[..., :3, 3] = rng.normal(size=(3, 2, 3))
    relative = relative_poses(torch.tensor(poses)).numpy()
    for pair, views in enumerate(poses):
        np.testing.assert_allclose(relative[pair, 0], np.eye(4), atol=1e-12)
        np.testing.assert_allclose(relative[pair, 1], np.linalg.inv(views[0]) @ views[1], atol=1e-12)
    geometry = random_geometry(1)
    view = 1
    turn = Rotation.from_quat(geometry.quaternion_BV4[2, view].numpy(), scalar_first=True)
    local = (geometry.rays_BVhw3[2, view] * geometry.distance_BVhw[2, view][..., None]).reshape(-1, 3).numpy()
    expected = turn.apply(local) + geometry.translation_BV3[2, view].numpy()
    np.testing.assert_allclose(geometry.world_points[2, view].reshape(-1, 3).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_real_stereo_pair_looks_alike_where_our_geometry_says() -> None:
    """Of the depths around the one that the disparity says, patches of both photographs agree best at it, to 1 %."""
    left, right, disparity = data.stereo_motorcycle()
    left, right = (image.mean(axis=2) for image in (left, right))
    focal, baseline, offset = 994.978, 0.193001, 31.086  # of the calibration: pixels, metres, pixels
    centre = torch.tensor([focal, focal, 311.193, 254.877], dtype=torch.float64)
    texture = ndimage.gaussian_filter(np.hypot(ndimage.sobel(left, 0), ndimage.sobel(left, 1)), 2)
    v, u = np.mgrid[20:480:6, 90:720:6].reshape(2, -1)
    clear = (texture[v, u] > 80) & (ndimage.maximum_filter(disparity, 9) - ndimage.minimum_filter(disparity, 9) < 2)[
        v, u
    ]
    v, u = v[clear], u[clear]
    depth = focal * baseline / (disparity[v, u].astype(np.float64) + offset)
    assert len(depth) > 200
    assert 1.5 < np.median(depth) < 5  # a motorcycle in a garage, in metres
    rays = pinhole_rays(torch.tensor(u, dtype=torch.float64), torch.tensor(v, dtype=torch.float64), centre)
    known = torch.ones(1, 1, 1, len(u), dtype=torch.bool)
    turn, way = torch.tensor([[[1.0, 0, 0, 0]]]).double(), torch.tensor([[[-baseline, 0, 0]]]).double()
    rows, columns = (some.reshape(-1, 1) for some in np.mgrid[-3:4, -3:4])
    ratios, unlike = np.linspace(0.94, 1.06, 61), []
    for ratio in ratios:
        distance = torch.tensor(ratio * depth) / rays[:, 2]
        x, y, z = (
            Geometry(rays[None, None, None], distance[None, None, None], turn, way, known)
            .world_points[0, 0, 0]
            .T.numpy()
        )
        column, row = focal * x / z + float(centre[2]) + offset, focal * y / z + float(centre[3])
        np.testing.assert_allclose(row, v, atol=1e-6)
        found = ndimage.map_coordinates(right, [row + rows, column + columns], order=1)
        unlike.append(np.square(found - left[v + rows, u + columns]).sum(axis=0))
    error = np.abs(ratios[np.argmin(unlike, axis=0)] - 1)
    assert np.median(error) < 0.01
    assert (error < 0.01).mean() > 0.7


def test_the_robust_loss_is_barrons() -> None:
    for length in (0.0, 0.01, 0.05, 1.0, 20.0):
        difference = torch.tensor([[length * 0.6, length * 0.8]])
        expected = (1.5 / 0.5) * (((length / 0.05) ** 2 / 1.5 + 1) ** (0.5 / 2) - 1)
        assert float(robust(difference)) == pytest.approx(expected, rel=1e-4, abs=1e-7)
    point = torch.tensor([[3.0, 0.0, 4.0]])
    torch.testing.assert_close(in_log_space(point), math.log(6) * point / 5)


def test_losses_are_blind_to_scale_and_sign_but_not_to_the_rest() -> None:
    truth, said = random_geometry(0), random_geometry(1)
    said = said._replace(known_BVhw=truth.known_BVhw)
    loss = two_view_loss(told(said), truth)
    # A common factor that the scale takes back, a quaternion's sign, and what is told where nothing is known.
    torch.testing.assert_close(two_view_loss(told(rescaled(said, 7.0), scale=1 / 7), truth), loss)
    torch.testing.assert_close(two_view_loss(told(said._replace(quaternion_BV4=-said.quaternion_BV4)), truth), loss)
    elsewhere = said.distance_BVhw.where(truth.known_BVhw, 100.0)
    torch.testing.assert_close(two_view_loss(told(said._replace(distance_BVhw=elsewhere)), truth), loss)
    # The truth is told best, but for a wrong scale.
    best = two_view_loss(told(truth), truth)
    assert best < loss
    assert two_view_loss(told(truth, scale=1.5), truth) > best
    for name, value in (
        ("distance_BVhw", truth.distance_BVhw * torch.linspace(1, 1.2, SIDE)),
        ("translation_BV3", truth.translation_BV3 * 1.2),
        ("quaternion_BV4", truth.quaternion_BV4.roll(1, 0)),
        ("rays_BVhw3", truth.rays_BVhw3.roll(1, 0)),
    ):
        assert two_view_loss(told(truth._replace(**{name: value})), truth) > best + 1e-3, name
    # Confidence pays where points are right and costs where they are wrong.
    assert two_view_loss(told(truth, confidence=4.0), truth) < best
    assert two_view_loss(told(said, confidence=4.0), truth) > loss


def test_the_truth_in_any_frame_and_unit_has_no_error() -> None:
    truth = random_geometry(0)
    turned = moved(rescaled(truth, 3.0), Rotation.from_rotvec([0.3, -1, 0.2]), np.array([1.0, 2.0, -3.0]))
    errors = pair_errors(turned, torch.full((PAIRS,), 1 / 3), truth)
    values = values_of(errors)
    assert list(values) == [metric.name for metric in METRICS]
    for metric in METRICS:
        expected = torch.ones(PAIRS) if metric.higher_is_better else torch.zeros(PAIRS)
        torch.testing.assert_close(values[metric.name], expected, atol=0.06 if metric.unit == "°" else 2e-5, rtol=0)


def test_metrics_are_their_formulas() -> None:
    truth, said = random_geometry(0), random_geometry(1)
    scale = torch.linspace(0.5, 2, PAIRS)
    values = values_of(pair_errors(said, scale, truth))
    for pair in range(PAIRS):
        known = truth.known_BVhw[pair].numpy()
        p, g = (some.world_points[pair].numpy()[known] for some in (said, truth))
        mean_p, mean_g = np.linalg.norm(p, axis=1).mean(), np.linalg.norm(g, axis=1).mean()
        assert float(values["scale_rel"][pair]) == pytest.approx(
            abs(float(scale[pair]) * mean_p - mean_g) / mean_g, rel=1e-4
        )
        p, g = p / mean_p, g / mean_g
        lengths = np.linalg.norm(p, axis=1), np.linalg.norm(g, axis=1)
        relative = np.linalg.norm(p - g, axis=1) / lengths[1]
        assert float(values["points_rel"][pair]) == pytest.approx(relative.mean(), rel=1e-4)
        ratio = np.maximum(lengths[0] / lengths[1], lengths[1] / lengths[0])
        assert float(values["points_inliers"][pair]) == pytest.approx((ratio < 1.03).mean(), abs=1e-6)
        z, w = (
            (some.rays_BVhw3[pair, ..., 2] * some.distance_BVhw[pair]).numpy()[known] / mean
            for some, mean in ((said, mean_p), (truth, mean_g))
        )
        assert float(values["depth_rel"][pair]) == pytest.approx((np.abs(z - w) / w).mean(), rel=1e-4)
        assert float(values["depth_inliers"][pair]) == pytest.approx((np.maximum(z / w, w / z) < 1.03).mean(), abs=1e-6)
        rays = [some.rays_BVhw3[pair].numpy()[known] for some in (said, truth)]
        angles = np.degrees(np.arccos(np.clip((rays[0] * rays[1]).sum(1), -1, 1)))
        assert float(values["rays_deg"][pair]) == pytest.approx(angles.mean(), rel=1e-3)
        way = said.translation_BV3[pair, 1].numpy() / mean_p - truth.translation_BV3[pair, 1].numpy() / mean_g
        assert float(values["trajectory"][pair]) == pytest.approx(math.sqrt((0 + way @ way) / 2), rel=1e-4)


@pytest.mark.parametrize(
    ("rotation", "direction", "share"),
    [
        (0.5, 0.5, 1.0),
        (1.5, 0.0, 0.8),
        (0.0, 4.5, 0.2),
        (4.5, 175.8, 0.2),
        (6.0, 0.0, 0.0),
        (0.0, 90.0, 0.0),
        (0.0, 180.0, 1.0),
    ],
)
def test_pose_auc_is_the_mean_share_below_one_to_five_degrees(rotation: float, direction: float, share: float) -> None:
    truth = random_geometry(0)
    turn = Rotation.from_rotvec(np.radians(rotation) * np.array([0.0, 1.0, 0.0])).as_matrix()
    matrices = rotation_matrix(truth.quaternion_BV4).clone()
    matrices[:, 1] = torch.tensor(turn).float() @ matrices[:, 1]
    ways = truth.translation_BV3.clone()
    for pair in range(PAIRS):
        way = ways[pair, 1].numpy()
        across = np.cross(way, [1.0, 0.0, 0.0])
        bent = Rotation.from_rotvec(np.radians(direction) * across / np.linalg.norm(across)).apply(way)
        ways[pair, 1] = torch.tensor(2.5 * bent)
    errors = pair_errors(
        truth._replace(quaternion_BV4=quaternion(matrices), translation_BV3=ways), torch.ones(PAIRS), truth
    )
    torch.testing.assert_close(per_pair_auc(errors), torch.full((PAIRS,), share))


def test_standing_still_is_a_right_angle_from_any_direction() -> None:
    truth = random_geometry(0)
    still = truth._replace(translation_BV3=torch.zeros_like(truth.translation_BV3))
    assert (pair_errors(still, torch.ones(PAIRS), truth)["direction_deg"] == 90).all()
    assert (mean_distance(truth.world_points, truth.known_BVhw) > 0).all()
