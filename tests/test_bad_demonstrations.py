"""Demonstrations that cannot be used, through the commands that are given them: one sentence, exit code 2, nothing unfinished."""

from collections.abc import Callable
from pathlib import Path

import pytest
from bad_sources import FEATURES, make_store, missing_array, truncated_chunk, unreadable_video, version_2
from forked_scripts import run_script

from pixio_robot.demos import DemoStore


def short_episodes(folder: Path) -> str:
    return make_store(folder / "short.zarr").path.name  # of 3 steps


def no_episode(folder: Path) -> str:
    return DemoStore.create(folder / "empty.zarr", FEATURES, {"fps": 5}).path.name


TINY = ["trainer=debug", "evaluation.episodes=0", "encoder.weights=random", "encoder.image_size=16"]
TRAIN = ["train_policy.py", "demos=store", "demos.path={}", *TINY]
TRAIN_ON_LEROBOTS = ["train_policy.py", "demos=lerobot", "demos.root={}", *TINY]


@pytest.mark.parametrize(
    ("make", "command", "says"),
    [
        (
            short_episodes,
            TRAIN,
            "1 of 1 demonstrations are shorter than the policy's action horizon of 16 steps (episode 0 has 3)",
        ),
        (no_episode, TRAIN, "empty.zarr has no finished episode"),
        (truncated_chunk, TRAIN, "damaged: data/observation.images.front cannot be read"),
        (missing_array, TRAIN, "damaged: data/action cannot be read"),
        (version_2, TRAIN_ON_LEROBOTS, "is a LeRobotDataset v2.1, but v3.0 is needed"),
        (unreadable_video, TRAIN_ON_LEROBOTS, "file-000.mp4: observation.images.front of episode 0, step"),
        (missing_array, ["inspect_demos.py", "path={}"], "damaged: data/action cannot be read"),
    ],
    ids=["short", "empty", "truncated", "missing", "version", "video", "inspected"],
)
def test_a_sentence_and_exit_code_2(make: Callable[[Path], str], command: list[str], says: str, tmp_path: Path) -> None:
    source = make(tmp_path)
    done = run_script(*(word.format(source) for word in command), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    made = {path.name for path in (tmp_path / "outputs").rglob("*")}
    assert not made & {"checkpoints", "report.html", "inspection.json"}
    assert not list((tmp_path / "outputs").glob("demos/*"))


def test_a_camera_that_is_not_there_is_refused_before_anything_is_recorded(tmp_path: Path) -> None:
    for arguments, says in (
        (["env.camera_names=[agentveiw]"], "unknown camera 'agentveiw': did you mean 'agentview'?"),
        (["env=aloha_insertion", "env.camera_names=[topp]"], "unknown camera 'topp': did you mean 'top'?"),
    ):
        done = run_script("collect_demos.py", *arguments, "episodes=1", "output=lift.zarr", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "lift.zarr").exists()
