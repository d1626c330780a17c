"""Randomised frames for pretraining: reproducible, independent of the workers, resumable and truly varied."""

import hashlib
import io
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lerobot_env_pixio.scenes import (
    FAMILIES,
    FrameShards,
    SceneClass,
    SceneRenderer,
    missing_shards,
    open_renderer,
    render_shards,
    scene_frames,
)
from lerobot_env_pixio.scenes.families import (
    FRAMES_PER_SHARD,
    SIMULATOR_SHARES,
    family_shares,
    shard_families,
)
from lerobot_env_pixio.scenes.looks import dress
from lerobot_env_pixio.scenes.model import build_scene
from lerobot_env_pixio.scenes.sample import metric_depth
from PIL import Image

DESCRIPTION = FrameShards(frames=FRAMES_PER_SHARD + 3, seed=3, image_size=32, families=("pusht", "procedural_room"))


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    renderer = SceneRenderer("lift_panda", image_size=64, seed=1)
    rendered = np.stack([renderer.frame(index) for index in range(40)])
    renderer.close()
    return rendered


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("frames")
    render_shards(DESCRIPTION, output, workers=2)
    return output


def test_a_frame_depends_on_seed_and_index_only(frames: np.ndarray) -> None:
    again = SceneRenderer("lift_panda", image_size=64, seed=1)
    other = SceneRenderer("lift_panda", image_size=64, seed=2)
    assert (other.frame(0) != frames[0]).mean() > 0.3
    # out of order and beside another renderer, so that anything left over from an earlier frame would show
    shuffled = {index: again.frame(index) for index in (21, 3, 9, 10, 0)}
    again.close()
    other.close()
    for index, frame in shuffled.items():
        np.testing.assert_array_equal(frame, frames[index])


def test_frames_vary_in_light_and_view(frames: np.ndarray) -> None:
    brightness = frames.mean(axis=(1, 2, 3))
    assert brightness.max() > 3 * brightness.min()
    assert brightness.std() > 20
    # two views of one scene hardly correlate; a still camera's frames would, even under changing light
    flat = frames.mean(axis=3).reshape(len(frames), -1)
    correlation = np.corrcoef(flat)[np.triu_indices(len(frames), 1)]
    assert np.median(np.abs(correlation)) < 0.6


def test_every_frame_shows_something(frames: np.ndarray) -> None:
    grey = frames.mean(axis=3).reshape(len(frames), -1)
    assert (grey.std(axis=1) > 2.5).all()
    assert (grey.mean(axis=1) > 8).all()


@pytest.mark.parametrize("family", ["metaworld_drawer", "aloha_insertion", "procedural_room", "pusht"])
def test_every_simulator_gives_varied_frames_that_do_not_depend_on_their_order(family: str) -> None:
    renderer, again = open_renderer(family, 48, seed=5), open_renderer(family, 48, seed=5)
    rendered = np.stack([renderer.frame(index) for index in range(0, 24, 3)])
    np.testing.assert_array_equal(again.frame(9), rendered[3])
    renderer.close()
    again.close()
    assert rendered.shape == (8, 48, 48, 3)
    pairs = [(i, j) for i in range(8) for j in range(i)]
    assert min(np.abs(rendered[i].astype(float) - rendered[j]).mean() for i, j in pairs) > 3


def test_shards_hold_the_frames_of_one_renderer_whatever_the_workers(shards: Path) -> None:
    names = sorted(path.name for path in shards.glob("*.tar"))
    assert names == ["procedural_room-00001.tar", "pusht-00000.tar"]
    assert list(members(shards / names[1])) == [f"{index:07d}.jpg" for index in range(FRAMES_PER_SHARD)]
    for name, index in ((names[1], 5), (names[0], FRAMES_PER_SHARD + 2)):
        renderer = open_renderer(name.rsplit("-", 1)[0], 32, seed=3)
        stored = np.asarray(Image.open(io.BytesIO(members(shards / name)[f"{index:07d}.jpg"])), float)
        # what JPEG loses of a frame at this quality; two frames differ by tens
        assert np.abs(stored - renderer.frame(index)).mean() < 4
        renderer.close()


def test_a_second_run_renders_only_what_is_missing(shards: Path) -> None:
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards.glob("*.tar")}
    kept, lost = shards / "pusht-00000.tar", shards / "procedural_room-00001.tar"
    stamp = kept.stat().st_mtime_ns
    lost.write_bytes(lost.read_bytes()[:100])
    assert missing_shards(DESCRIPTION, shards) == [lost.name]
    assert render_shards(DESCRIPTION, shards, workers=1, only=[kept.name]) == FRAMES_PER_SHARD
    assert missing_shards(DESCRIPTION, shards) == [lost.name]  # it was not asked for
    counts: list[int] = []
    assert render_shards(DESCRIPTION, shards, workers=1, report=counts.append) == FRAMES_PER_SHARD
    assert counts[-1] == DESCRIPTION.frames
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards.glob("*.tar")} == before
    assert kept.stat().st_mtime_ns == stamp


def test_other_settings_do_not_mix_into_a_folder(shards: Path) -> None:
    with pytest.raises(ValueError, match="seed=3, not 4: choose another output folder"):
        render_shards(replace(DESCRIPTION, seed=4), shards, workers=1)


def test_an_unknown_family_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="unknown scene family 'lift_pnda': did you mean 'lift_panda'"):
        FrameShards(frames=1, families=("lift_pnda",))


def test_any_prefix_of_the_shards_holds_each_family_by_its_share() -> None:
    turns = shard_families(400, FAMILIES)
    assert turns[:60] == shard_families(60, FAMILIES)
    shares = family_shares(FAMILIES)
    for length in (60, 400):
        counts = Counter(turns[:length])
        assert all(abs(counts[name] - share * length) < 1.5 for name, share in shares.items())
    simulators = Counter(FAMILIES[name].simulator for name in turns)
    for simulator, share in SIMULATOR_SHARES.items():
        assert simulators[simulator] == pytest.approx(share * 400, abs=10)


def test_a_depth_buffer_becomes_metres_by_the_inverse_of_the_projection() -> None:
    # OpenGL's reversed perspective: buffer = near (far - z) / (z (far - near))
    near, far, metres = 0.01, 50.0, np.array([0.01, 0.1, 1.0, 7.0, 50.0])
    buffer = (near * (far - metres) / (metres * (far - near))).astype(np.float32)
    np.testing.assert_allclose(metric_depth(buffer, near, far), metres, rtol=1e-3)


def test_a_sample_agrees_with_itself_about_where_things_are() -> None:
    renderer = SceneRenderer("lift_panda", image_size=96, seed=1)
    samples = [renderer.sample(index) for index in range(0, 32, 2)]
    np.testing.assert_array_equal(samples[3].frame, renderer.frame(6))
    renderer.close()
    found = 0
    for sample in samples:
        x, y, z = np.nan_to_num(sample.object_positions[0], nan=-1.0)  # left out: as if behind the camera
        column, row = (int(48 + sample.focal_length * value / z) for value in (x, y))
        seen = z > 0.15 and 2 <= column < 94 and 2 <= row < 94
        if seen and sample.segmentation[row, column] == SceneClass.OBJECT:
            # the cube's face lies in front of its middle by half a side to half a diagonal
            assert 0.005 < z - sample.depth[row, column] < 0.07
            found += 1
        assert np.isinf(sample.depth[sample.segmentation == SceneClass.BACKGROUND]).all()
        rotation = sample.gripper_poses[0, :3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(rotation) > 0.99
    assert found >= 2
    assert {int(value) for s in samples for value in np.unique(s.segmentation)} >= {3, 4, 5, 6}


def test_a_look_does_not_leave_its_sky_to_the_next() -> None:
    scene = build_scene(FAMILIES["procedural_table"])
    rng = np.random.default_rng(0)
    start = scene.model.tex_adr[scene.skybox]
    sides = scene.model.tex_height[scene.skybox] * scene.model.tex_width[scene.skybox]
    sky = slice(start, start + sides * scene.model.tex_nchannel[scene.skybox])
    for _ in range(20):  # until a look has painted it
        assert scene.skybox in dress(scene, rng, plain=False).textures  # uploaded, also where it is the scene's own
        if not np.array_equal(scene.model.tex_data[sky], scene.nominal.tex_data[sky]):
            break
    else:
        pytest.fail("no look paints the sky")
    assert dress(scene, rng, plain=True).textures == (scene.skybox,)
    np.testing.assert_array_equal(scene.model.tex_data[sky], scene.nominal.tex_data[sky])


def test_live_frames_depend_on_seed_and_index_alone() -> None:
    families = ("pusht", "procedural_table")
    live, again = (scene_frames(32, 4, families) for _ in range(2))
    indices = [index for block in range(0, 640, 64) for index in (block, block + 1)]
    rendered = {index: live.frame(index) for index in indices}
    assert {live.family(index) for index in indices} == set(families)
    for index in reversed(indices[::5]):
        np.testing.assert_array_equal(again.frame(index), rendered[index])
    live.close()
    again.close()
