import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from pixio_robot.common.errors import UserError
from pixio_robot.common.versions import software_versions
from pixio_robot.evaluation.record import Crash, Episode, EvaluationRecord


@pytest.fixture
def record() -> EvaluationRecord:
    return EvaluationRecord(
        episodes=(
            Episode(100000, True, 31, 12.5, 1.25, video="videos/100000_success.mp4"),
            Episode(100001, False, 150, -3.0, 4.0),
            Episode(100002, False, 0, 0.0, 0.0, error="worker killed by SIGKILL"),
            Episode(100003, True, 40, 13.5, 1.5),
        ),
        env={"type": "pixio_toy", "task": "Push"},
        render_profile="fast",
        versions={"torch": "2.11.0"},
        checkpoint="outputs/run/checkpoints/last/pretrained_model",
        seconds=9.5,
        workers=2,
        crashes=(Crash(100002, 1, "worker killed by SIGKILL"), Crash(100002, 2, "worker killed by SIGKILL")),
    )


def test_what_is_saved_is_loaded(record: EvaluationRecord, tmp_path: Path) -> None:
    path = tmp_path / "evaluation" / "evaluation.json"
    record.save(path)
    assert EvaluationRecord.load(path) == record
    assert [file.name for file in path.parent.iterdir()] == ["evaluation.json"]


def test_the_file_follows_the_schema(record: EvaluationRecord, tmp_path: Path) -> None:
    record.save(tmp_path / "evaluation.json")
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["success_rate"] == 0.5
    # Wilson interval of 2 of 4 at 95 %, from scipy.stats.binomtest(2, 4).proportion_ci(method="wilson").
    assert content["ci95"] == pytest.approx([0.15003898915214947, 0.8499610108478506])
    assert content["n_episodes"] == 4
    assert content["env"] == {"type": "pixio_toy", "task": "Push"}
    assert content["render_profile"] == "fast"
    assert content["versions"] == {"torch": "2.11.0"}
    assert content["checkpoint"] == "outputs/run/checkpoints/last/pretrained_model"
    first = content["episodes"][0]
    assert (first["seed"], first["success"], first["steps"], first["return"]) == (100000, True, 31, 12.5)


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    for content in (None, "", "[]", '{"episodes": []}', '{"episodes": [{"seed": 1}]}'):
        path = tmp_path / "evaluation.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(
            UserError, match=r"evaluation\.json (is not an evaluation record|is damaged|cannot be read)"
        ):
            EvaluationRecord.load(path)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"seconds": float("nan")}, "seconds"),
        ({"workers": True}, "workers"),
        ({"env": [1]}, "env"),
        ({"versions": {"torch": 2}}, "versions torch"),
        (
            {"episodes": [{"seed": 1, "success": "yes", "steps": 1, "return": 1.0, "seconds": 1.0}]},
            "episodes 0 success",
        ),
        (
            {"episodes": [{"seed": 1, "success": True, "steps": 1, "return": 0, "seconds": 1, "video": "../../key"}]},
            "episodes 0 video .*outside",
        ),
    ],
)
def test_what_a_record_cannot_say_is_named(record: EvaluationRecord, change, where: str, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({**record.as_json(), **change}))
    with pytest.raises(UserError, match=rf"evaluation\.json is not an evaluation record \({where}"):
        EvaluationRecord.load(path)


def test_versions_are_those_of_this_process_and_clone() -> None:
    versions = software_versions()
    assert versions["python"] == platform.python_version()
    for package in ("torch", "timm", "lerobot", "mujoco", "robosuite", "zarr", "pixio-robot"):
        assert versions[package] == version(package)
    assert versions["platform"]
    assert versions["cpu"]
    here = Path(__file__).parent
    done = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        assert versions["git_commit"].removesuffix("-dirty") == done.stdout.strip()
    assert json.loads(json.dumps(versions)) == versions
