"""Randomised frames for pretraining: reproducible, independent of the workers, resumable and truly varied."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lerobot_env_pixio.scenes import FrameFolder, SceneRenderer, render_folder
from PIL import Image

DESCRIPTION = FrameFolder(frames=66, seed=3, image_size=48, families=("lift_panda", "stack_jaco"))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("*.jpg"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    renderer = SceneRenderer("lift_panda", image_size=64, seed=1)
    rendered = np.stack(list(renderer.frames(range(24))))
    renderer.close()
    return rendered


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("frames")
    render_folder(DESCRIPTION, output, workers=2)
    return output


def test_a_frame_depends_on_seed_and_index_only(frames: np.ndarray) -> None:
    again = SceneRenderer("lift_panda", image_size=64, seed=1)
    other = SceneRenderer("lift_panda", image_size=64, seed=2)
    assert (other.frame(0) != frames[0]).mean() > 0.3
    # out of order and beside another renderer, so that anything left over from an earlier frame would show
    shuffled = {index: again.frame(index) for index in (21, 2, 9, 10, 0)}
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


def test_the_folder_holds_the_frames_of_one_renderer_whatever_the_workers(folder: Path) -> None:
    files = {int(file.stem): file for file in folder.rglob("*.jpg")}
    assert sorted(files) == list(range(66))
    for family, indices in (("lift_panda", (63, 5)), ("stack_jaco", (65,))):
        renderer = SceneRenderer(family, image_size=48, seed=3)
        for index in indices:
            assert files[index].parent.parent.name == family
            stored = np.asarray(Image.open(files[index]), float)
            # what JPEG loses of a frame at this quality; two frames differ by tens
            assert np.abs(stored - renderer.frame(index)).mean() < 3
        renderer.close()


def test_a_second_run_renders_only_what_is_missing(folder: Path) -> None:
    before = digests(folder)
    kept, lost = folder / "lift_panda" / "00000", folder / "stack_jaco" / "00001"
    stamps = {file: file.stat().st_mtime_ns for file in kept.iterdir()}
    (lost / "0000064.jpg").unlink()
    counts: list[int] = []
    assert render_folder(DESCRIPTION, folder, workers=1, report=counts.append) == 64
    assert counts[-1] == 66
    assert digests(folder) == before
    assert {file: file.stat().st_mtime_ns for file in kept.iterdir()} == stamps


def test_other_settings_do_not_mix_into_a_folder(folder: Path) -> None:
    with pytest.raises(ValueError, match="seed=3, not 4: choose another output folder"):
        render_folder(replace(DESCRIPTION, seed=4), folder, workers=1)


def test_an_unknown_family_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="unknown scene family 'lift_pnda': did you mean 'lift_panda'"):
        FrameFolder(frames=1, families=("lift_pnda",))
