"""Pairs are rendered, written and read without loss, and a folder that is not in the layout is refused in one sentence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot_env_pixio.scenes import PairRenderer, ScenePair
from PIL import Image

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.two_view.data import chosen_pairs, read_pairs, users_set
from pixio_robot.downstream.two_view.exr import read_exr, write_exr
from pixio_robot.downstream.two_view.wai import read_scenes, write_scene

SIDE = 48


@pytest.fixture(scope="module")
def rendered() -> list[ScenePair]:
    renderer = PairRenderer("procedural_table", SIDE, seed=7)
    pairs = [renderer.pair(index) for index in range(4)]
    renderer.close()
    return pairs


@pytest.fixture
def scene(tmp_path: Path, rendered: list[ScenePair]) -> Path:
    write_scene(tmp_path / "set" / "one", rendered[0].views, rendered[0].covisibility)
    return tmp_path / "set" / "one"


def test_view_1s_depth_seen_from_view_0_is_view_0s_depth(rendered: list[ScenePair]) -> None:
    for pair in rendered:
        for (i, j), share in np.ndenumerate(pair.covisibility):
            view, other = pair.views[i], pair.views[j]
            v, u = np.nonzero(np.isfinite(view.depth))
            middle, focal = (SIDE - 1) / 2, view.focal_length
            z = view.depth[v, u].astype(np.float64)
            local = np.stack([(u - middle) / focal * z, (v - middle) / focal * z, z, np.ones_like(z)])
            x, y, z, _ = np.linalg.inv(other.pose) @ view.pose @ local
            ahead = z > 0.01
            column = np.rint(other.focal_length * x / np.where(ahead, z, 1) + middle)
            row = np.rint(other.focal_length * y / np.where(ahead, z, 1) + middle)
            inside = ahead & (column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE)
            there = other.depth[row[inside].astype(int), column[inside].astype(int)]
            agree = np.abs(there / z[inside] - 1) < 0.02
            assert agree.sum() / len(v) == pytest.approx(share, abs=0.01)
            # What does not agree is hidden by something nearer, but for pixels on edges and steep surfaces.
            assert (there < z[inside] * 1.02).mean() > 0.9
        assert pair.covisibility.min() >= 0.25
        first, second = (view.pose for view in pair.views)
        assert np.linalg.norm(first[:3, 3] - second[:3, 3]) > 0.005
        assert (pair.views[0].frame != pair.views[1].frame).mean() > 0.1


def test_a_pair_depends_on_seed_and_index_only(rendered: list[ScenePair]) -> None:
    renderer = PairRenderer("procedural_table", SIDE, seed=7)
    for index in (3, 1):
        again = renderer.pair(index)
        for view, before in zip(again.views, rendered[index].views, strict=True):
            assert np.array_equal(view.frame, before.frame)
            assert np.array_equal(view.pose, before.pose)
    renderer.close()


def test_depth_survives_a_file(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).gamma(2, 2, (13, 37)).astype(np.float32)
    depth[0, 0], depth[1, 1] = np.inf, 0
    write_exr(tmp_path / "depth.exr", depth)
    assert np.array_equal(read_exr(tmp_path / "depth.exr"), depth)
    header = (tmp_path / "depth.exr").read_bytes()
    assert header[:4] == bytes([0x76, 0x2F, 0x31, 0x01])  # OpenEXR's magic number
    (tmp_path / "bad.exr").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.exr is no OpenEXR image"):
        read_exr(tmp_path / "bad.exr")


def test_a_written_scene_is_read_as_it_was(scene: Path, rendered: list[ScenePair]) -> None:
    pairs = read_pairs(chosen_pairs(read_scenes(scene.parent), 0.25, 5), SIDE, 12)
    assert pairs.names == ["one: 000000, 000001"]
    at = (np.arange(12) + 0.5) * SIDE / 12
    steps = at.astype(int)
    for number, view in enumerate(rendered[0].views):
        assert np.array_equal(pairs.images_NVHWC[0, number].numpy(), view.frame)
        depth = view.depth[steps][:, steps]
        np.testing.assert_array_equal(pairs.depth_NVhw[0, number].numpy(), np.where(np.isfinite(depth), depth, 0))
        np.testing.assert_allclose(pairs.pose_NV44[0, number].numpy(), view.pose, atol=1e-6)
        ray = pairs.rays_NVhw3[0, number, 2, 5].numpy()
        middle = (SIDE - 1) / 2
        wanted = np.array([(steps[5] - middle) / view.focal_length, (steps[2] - middle) / view.focal_length, 1])
        np.testing.assert_allclose(ray, wanted / np.linalg.norm(wanted), rtol=1e-5, atol=1e-7)
    # Points of both views lie in view 0's frame, or in view 1's if they are swapped.
    truth, swapped = pairs.truth(torch.tensor([0])), pairs.truth(torch.tensor([0]), swapped=True)
    a, b = (np.asarray(view.pose) for view in rendered[0].views)
    there = (np.linalg.inv(b) @ a)[:3]
    known = truth.known_BVhw[0, 0]
    points = truth.world_points[0, 0][known].numpy() @ there[:, :3].T + there[:, 3]
    np.testing.assert_allclose(swapped.world_points[0, 1][known].numpy(), points, rtol=1e-3, atol=1e-4)


def test_a_wide_image_keeps_its_middle_and_its_rays(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "wide"
    for part in ("images", "depth", "covisibility/v0"):
        (folder / part).mkdir(parents=True)
    depth = np.arange(20 * 30, dtype=np.float32).reshape(20, 30) + 1
    frames = []
    for number in range(2):
        Image.new("RGB", (30, 20), (0, 80 * number, 0)).save(folder / f"images/{number}.jpg")
        write_exr(folder / f"depth/{number}.exr", depth)
        pose = np.eye(4)
        pose[0, 3] = number
        frames.append(
            {"frame_name": str(number), "file_path": f"images/{number}.jpg", "metric": f"depth/{number}.exr"}
            | {"transform_matrix": pose.tolist(), "fl_x": 25.0}
        )
    meta = {"camera_convention": "opencv", "camera_model": "PINHOLE", "frames": frames, "fl_x": 1.0, "fl_y": 24.0}
    meta |= {
        "cx": 14.0,
        "cy": 9.0,
        "w": 30,
        "h": 20,
        "frame_modalities": {"gt": {"frame_key": "metric", "format": "depth"}},
    }
    (folder / "scene_meta.json").write_text(json.dumps(meta))
    np.save(folder / "covisibility/v0/any.npy", np.ones((2, 2), np.float32))
    pairs = read_pairs(chosen_pairs(read_scenes(tmp_path / "set"), 0.25, 5), 10, 5)
    assert pairs.images_NVHWC.shape == (1, 2, 10, 10, 3)
    v, u = 2 + 4 * np.arange(5), 5 + 2 + 4 * np.arange(5)  # the middle square begins in column 5
    np.testing.assert_array_equal(pairs.depth_NVhw[0, 1].numpy(), depth[v][:, u])
    rays = pairs.rays_NVhw3[0, 1].numpy()
    np.testing.assert_allclose(
        rays[1, :, 0] / rays[1, :, 2], (u - 14.0) / 25.0, rtol=1e-5, atol=1e-7
    )  # the frame's fl_x
    np.testing.assert_allclose(rays[:, 1, 1] / rays[:, 1, 2], (v - 9.0) / 24.0, rtol=1e-5, atol=1e-7)


def change_meta(**changes: object):
    def change(scene: Path) -> None:
        path = scene / "scene_meta.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def change_frame(name: str, value: object):
    def change(scene: Path) -> None:
        path = scene / "scene_meta.json"
        meta = json.loads(path.read_text())
        meta["frames"][1].pop(name)
        if value is not None:
            meta["frames"][1][name] = value
        path.write_text(json.dumps(meta))

    return change


def leads_out(scene: Path) -> None:
    elsewhere = scene.parent / "000000.exr"
    (scene / "depth" / "000000.exr").rename(elsewhere)
    (scene / "depth" / "000000.exr").symlink_to(elsewhere)


MIRRORED = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda scene: shutil.rmtree(scene), r"holds no scenes in the WAI layout .* it holds nothing"),
        (lambda scene: (scene / "scene_meta.json").write_text("{"), "is no JSON"),
        (change_meta(frames=[]), "has no list of frames"),
        (change_meta(camera_convention="opengl"), "says camera_convention='opengl'; only opencv"),
        (change_meta(camera_model="OPENCV_FISHEYE"), "only PINHOLE is read: undistort it first"),
        (change_frame("transform_matrix", None), "Frame '000001' of .* has no transform_matrix"),
        (change_frame("transform_matrix", MIRRORED), "is no rigid motion"),
        (change_frame("transform_matrix", [[1, 0], [0, 1]]), "that are no numbers"),
        (change_frame("fl_x", None), "has no fl_x"),
        (change_frame("fl_x", 0.0), "intrinsics that no camera has"),
        (change_frame("depth", None), "has no depth"),
        (lambda scene: (scene / "images/000001.png").unlink(), r"names .*000001\.png, which is not there"),
        (lambda scene: (scene / "depth/000000.exr").unlink(), r"names .*000000\.exr, which is not there"),
        (leads_out, r"names .*000000\.exr, which is outside the scene's folder"),
        (lambda scene: (scene / "images/000001.png").write_text("x"), "is no image that can be read"),
        (
            lambda scene: write_exr(scene / "depth/000000.exr", np.ones((5, 9), np.float32)),
            "has 9×5 px, but .* says 48×48",
        ),
        (
            lambda scene: shutil.rmtree(scene / "covisibility"),
            "must hold one .npy of which frames see the same, and holds 0",
        ),
        (lambda scene: np.save(scene / "covisibility/v0/b.npy", np.eye(2)), "and holds 2"),
        (
            lambda scene: np.save(next((scene / "covisibility/v0").iterdir()), np.eye(3)),
            r"has shape \(3, 3\), but the scene has 2 frames",
        ),
        (
            lambda scene: np.save(next((scene / "covisibility/v0").iterdir()), np.eye(2)),
            "None of 1 scenes has two frames that see 25% of each other",
        ),
    ],
)
def test_another_layout_is_refused_in_one_sentence(scene: Path, spoil, sentence: str) -> None:
    spoil(scene)
    with pytest.raises(UserError, match=sentence):
        read_pairs(chosen_pairs(read_scenes(scene.parent), 0.25, 5), SIDE, 12)


def test_scenes_are_split_as_the_user_says_or_at_random(scene: Path) -> None:
    root = scene.parent
    with pytest.raises(UserError, match="holds 1 scenes, of which .* both need at least one"):
        users_set(root, 0.2)
    for number in range(9):
        shutil.copytree(scene, root / f"scene{number}")
    train, test = ({some.name for some in scenes} for scenes in users_set(root, 0.2))
    assert (len(train), len(test), len(train | test)) == (8, 2, 10)
    (root / "train").mkdir()
    (root / "test").mkdir()
    scene.rename(root / "train" / "one")
    (root / "scene0").rename(root / "test" / "other")
    assert [[some.name for some in scenes] for scenes in users_set(root, 0.2)] == [["one"], ["other"]]
    with pytest.raises(UserError, match="There is no folder"):
        users_set(root / "nowhere", 0.2)
