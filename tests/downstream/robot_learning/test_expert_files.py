"""Public expert files become demonstration stores, and what is no expert file is named."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.robot_learning.expert_files import ExpertFile

QUIET = Console(quiet=True)


def episode(steps: int = 5, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (steps, 16, 16, 3), np.uint8),
        "actions": rng.normal(size=(steps, 6)),
        "rewards": rng.normal(size=steps),
        "env_infos": {"proprio": rng.normal(size=(steps, 24))},
    }


def expert_file(folder: Path, content: object, proprioception: str | None = "proprio") -> ExpertFile:
    path = folder / "pen-v0.pickle"
    path.write_bytes(pickle.dumps(content))
    return ExpertFile(path, "vil_camera", proprioception)


def test_the_first_episodes_are_stored_as_they_are(tmp_path: Path) -> None:
    episodes = [episode(5, 0), episode(7, 1), episode(6, 2)]
    file = expert_file(tmp_path, episodes)
    store = file.converted(tmp_path / "stores", 2, lambda steps: 10 * steps, "turn the pen", QUIET)
    assert store.episode_ends.tolist() == [5, 12]
    assert store.fps == 50
    assert store.attributes["source"] == "pen-v0.pickle"
    second = store.episode(1)
    np.testing.assert_array_equal(second["observation.images.vil_camera"], episodes[1]["images"])
    np.testing.assert_array_equal(second["action"], episodes[1]["actions"].astype(np.float32))
    np.testing.assert_array_equal(second["observation.state"], episodes[1]["env_infos"]["proprio"].astype(np.float32))
    again = file.converted(tmp_path / "stores", 2, lambda steps: 10, "turn the pen", QUIET)
    assert again.fps == 50  # it was there
    assert len(list((tmp_path / "stores").iterdir())) == 1
    assert file.converted(tmp_path / "stores", 3, lambda steps: 10, "turn the pen", QUIET).num_episodes == 3


def test_no_proprioception_is_one_zero(tmp_path: Path) -> None:
    file = expert_file(tmp_path, [episode()], proprioception=None)
    store = file.converted(tmp_path / "stores", 1, lambda steps: 10, "run", QUIET)
    np.testing.assert_array_equal(store.episode(0)["observation.state"], np.zeros((5, 1), np.float32))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"images": 1}, "holds a dict, and a list of at least 1 is needed"),
        ([], "holds a list of 0 episodes"),
        ([[1, 2]], "episode 0: images is not there"),
        ([episode() | {"images": [1, 2]}], "episode 0: images is a list"),
        ([episode() | {"images": np.zeros((5, 16, 16), np.uint8)}], "episode 0: images has 3 axes"),
        ([episode() | {"images": np.zeros((5, 16, 16, 3))}], "images are float64"),
        ([episode() | {"actions": np.zeros((4, 6))}], "has 5 images, 4 actions and 5 states"),
        ([episode() | {"env_infos": {}}], "episode 0: proprio is not there"),
        ([episode() | {"env_infos": None}], "episode 0: proprio is not there"),
        ([episode() | {"actions": np.array([Path()], object)}], "anything|plain containers only"),
    ],
)
def test_what_is_no_expert_file_is_named(tmp_path: Path, content: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        expert_file(tmp_path, content).converted(tmp_path / "stores", 1, lambda steps: 10, "task", QUIET)
    assert "pen-v0.pickle" in str(caught.value)
    assert not list((tmp_path / "stores").glob("*.zarr"))


def test_a_bad_episode_leaves_no_store(tmp_path: Path) -> None:
    file = expert_file(tmp_path, [episode(), episode() | {"actions": np.zeros((4, 6))}])
    with pytest.raises(UserError, match="episode 1 has 5 images, 4 actions"):
        file.converted(tmp_path / "stores", 2, lambda steps: 10, "task", QUIET)
    assert not list((tmp_path / "stores").iterdir())


def test_a_folder_without_the_file_says_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "adroit-expert-v1.0"
    with pytest.raises(UserError, match="pen-v0.pickle was looked for in .*there is no such folder"):
        ExpertFile(folder / "pen-v0.pickle", "vil_camera", None).check()
    folder.mkdir()
    (folder / "door-v0.pickle").touch()
    with pytest.raises(UserError, match="that folder has door-v0.pickle: set data.cortexbench"):
        ExpertFile(folder / "pen-v0.pickle", "vil_camera", None).check()
