"""CortexBench's suites as tasks: what is trained, what is measured, what is asked of the user."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml
from lerobot_env_pixio import DmcEnvConfig
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.store.layout import Feature
from pixio_robot.downstream.config import Data, Protocol
from pixio_robot.downstream.robot_learning.config import RobotLearningProtocol
from pixio_robot.downstream.robot_learning.suites import suites
from pixio_robot.downstream.robot_learning.task import _interval, _Measured, robot_learning_tasks
from pixio_robot.encoders import EncoderConfig
from pixio_robot.evaluation.record import Episode, EvaluationRecord


def tasks(folder: Path, data: Data | None = None, **protocol: object) -> list:
    return robot_learning_tasks(RobotLearningProtocol(**protocol), data or Data(), folder)


def test_metaworld_and_what_the_user_has_data_for(tmp_path: Path) -> None:
    assert isinstance(Protocol().robot_learning, RobotLearningProtocol)
    assert [task.name for task in tasks(tmp_path)] == ["robot_learning-metaworld"]
    (tmp_path / "dmc-expert-v1.0").mkdir()
    found = suites(RobotLearningProtocol(), Data(cortexbench=tmp_path, adroit=tmp_path))
    assert [suite.name for suite in found] == ["metaworld", "adroit", "dmc"]
    assert found[1].env("pen")["experts"] == str(tmp_path)
    assert found[2].file("walker_walk").path == tmp_path / "dmc-expert-v1.0" / "dmc_walker_walk-v1.pickle"
    only = suites(RobotLearningProtocol(suites=("adroit",)), Data(cortexbench=tmp_path))
    assert only[0].file("pen").path == tmp_path / "adroit-expert-v1.0" / "pen-v0.pickle"


@pytest.mark.parametrize(
    ("suite", "sentence"),
    [
        ("dmc", "The suite dmc needs demonstrations: set data.cortexbench to the folder that has dmc-expert-v1.0."),
        ("adroit", "adroit-expert-v1.0 or data.adroit"),
    ],
)
def test_a_suite_without_data_is_refused(tmp_path: Path, suite: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        tasks(tmp_path, suites=(suite,))


def test_missing_files_and_wrong_sizes_are_found_at_once(tmp_path: Path) -> None:
    data = Data(cortexbench=tmp_path)
    (task,) = tasks(tmp_path, data, suites=("dmc",))
    with pytest.raises(UserError, match="dmc_reacher_easy-v1.pickle was looked for in .*there is no such folder"):
        task.check(EncoderConfig("pixels"))
    (task,) = tasks(tmp_path, image_size=100)
    with pytest.raises(UserError, match="100"):
        task.check(EncoderConfig("pixels"))
    (task,) = tasks(tmp_path, Data(adroit=tmp_path), suites=("adroit",))
    with pytest.raises(UserError, match="there is no expert .*relocate.npz"):
        task.check(EncoderConfig("pixels"))


def test_adroit_names_the_extra_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (task,) = tasks(tmp_path, Data(adroit=tmp_path), suites=("adroit",))
    with pytest.raises(UserError, match=r"lerobot_env_pixio\[adroit\]"):
        task.check(EncoderConfig("pixels"))


def demonstrations(path: Path, steps: int) -> DemoStore:
    features = {
        "observation.images.top_cap2": Feature((32, 32, 3), "uint8"),
        "observation.state": Feature((4,), "float32"),
        "action": Feature((4,), "float32"),
    }
    store = DemoStore.create(path, features, {"fps": 80, "expert": "scripted"})
    data = {key: np.zeros((steps, *feature.shape), feature.dtype) for key, feature in features.items()}
    for seed in range(2):
        store.append_episode(data, seed=seed, success=True, task="press")
    return store


def test_the_policy_is_cortexbenchs(tmp_path: Path) -> None:
    (task,) = tasks(
        tmp_path, epochs=100, evaluate_every=5, metaworld={"tasks": ["hammer"], "demonstrations": 2, "rollouts": 25}
    )
    store = demonstrations(tmp_path / "demos.zarr", steps=384)
    env = task._suite.env("hammer")
    job = task._job(EncoderConfig("pixels"), "hammer", store, env, seed=100, folder=tmp_path)
    assert (job.trainer.steps, job.trainer.evaluate_every) == (300, 15)  # 768 windows are three batches of 256
    trainer = job.trainer
    assert (trainer.learning_rate, trainer.weight_decay, trainer.average_decay, trainer.warmup_steps) == (1e-3, 0, 0, 0)
    assert trainer.schedule == "constant"
    assert job.policy["neck"] == "cls_mean"
    assert (job.evaluation.episodes, job.evaluation.episodes_during_training, job.seed) == (25, 25, 100)
    assert job.env["ends_at_success"] is False
    assert job.env["camera_names"] == ["top_cap2"]
    assert task.identity() != tasks(tmp_path, epochs=99)[0].identity()
    assert tasks(tmp_path, workers=1)[0].identity() == tasks(tmp_path, workers=2)[0].identity()
    json.dumps(task.identity())


def record(folder: Path, successes: list[bool], returns: list[float], log: list[dict]) -> None:
    episodes = tuple(
        Episode(seed, success, 10, total, 1.0) for seed, (success, total) in enumerate(zip(successes, returns))
    )
    EvaluationRecord(episodes, {}, None, {}, "here", 1.0, 1).save(folder / "evaluation" / "evaluation.json")
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in log))
    (folder / "report.html").touch()


def test_scores_are_successes_or_returns_and_the_highest_is_of_the_evaluations(tmp_path: Path) -> None:
    assert _Measured.read(tmp_path, "success") is None
    log = [{"phase": "training", "step": step, "loss": 1.0} for step in (5, 10)]
    log += [
        {"phase": "training", "step": step, "success_rate": rate, "mean_return": 1000 * rate, "episodes": 4}
        for step, rate in ((5, 0.75), (10, 0.25))
    ]
    record(tmp_path, [True, False, True, False], [500, 100, 0, 200], log)
    by_success, by_return = (_Measured.read(tmp_path, score) for score in ("success", "return"))
    assert by_success is not None
    assert by_return is not None
    assert (by_success.final, by_success.highest) == (0.5, 0.75)
    assert by_return.final == pytest.approx(0.2)
    assert by_return.evaluations == {"5": 0.75, "10": 0.25}


def test_how_tasks_differ_is_no_uncertainty(tmp_path: Path) -> None:
    always, never = _Measured([1.0] * 10, {}), _Measured([0.0] * 10, {})
    assert _interval({"easy": [always, always], "hard": [never, never]}) == (0.5, 0.5)
    low, high = _interval({"easy": [always, never], "hard": [always, never]})
    assert (low, high) == (0.0, 1.0)  # two seeds that disagree
    low, high = _interval({"one": [_Measured([1.0, 0.0] * 10, {})]})
    assert 0.2 < low < 0.35
    assert 0.65 < high < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [EncoderConfig("pixels"), EncoderConfig("pixio_tiny16", "random")])
def test_metaworld_from_demonstrations_to_a_cell(tmp_path: Path, encoder: EncoderConfig) -> None:
    (task,) = tasks(
        tmp_path / "data",
        image_size=32,
        epochs=2,
        evaluate_every=1,
        batch_size=16,
        metaworld={"tasks": ["drawer-open"], "demonstrations": 1, "rollouts": 2, "steps": 120},
    )
    task.check(encoder)
    folder = tmp_path / "cell"
    folder.mkdir()
    first = task.measure(encoder, folder, Console(quiet=True))
    assert set(first.metrics) == {"final", "highest"}
    assert all((folder / name).is_file() for name in first.pictures.values())
    assert len(first.pictures) == 1
    assert first.record["published"]["Pixio ViT-H"] == 92.8
    assert len(first.record["tasks"]["drawer-open"]["100"]["evaluations"]) == 2
    assert not (folder / "features").exists()
    written = {file: file.stat().st_mtime_ns for file in folder.rglob("evaluation.json")}
    again = task.measure(encoder, folder, Console(quiet=True))
    assert again == first
    assert written == {file: file.stat().st_mtime_ns for file in folder.rglob("evaluation.json")}


@pytest.mark.slow
def test_the_control_suite_from_an_expert_file_to_a_cell(tmp_path: Path) -> None:
    """A file as CortexBench's are, with frames of an environment that a random policy moves."""
    config = DmcEnvConfig(task="reacher_easy", fps=5, action_repeat=10, episode_length=100, image_size=32)
    env, rng = config.make_env(), np.random.default_rng(0)
    episodes = []
    for seed in range(2):
        frames = [env.reset(seed=seed)[0]["pixels"]["camera_0"]]
        actions = rng.uniform(-1, 1, (100, 2))
        rewards = []
        for action in actions:
            observation, reward, *_ = env.step(action.astype(np.float32))
            frames.append(observation["pixels"]["camera_0"])
            rewards.append(reward)
        infos = {"internal_state": np.zeros((100, 4))}
        episodes.append(
            {"images": np.stack(frames[:-1]), "actions": actions, "rewards": np.array(rewards), "env_infos": infos}
        )
    env.close()
    (tmp_path / "dmc-expert-v1.0").mkdir()
    (tmp_path / "dmc-expert-v1.0" / "dmc_reacher_easy-v1.pickle").write_bytes(pickle.dumps(episodes))
    (task,) = tasks(
        tmp_path / "data",
        Data(cortexbench=tmp_path),
        suites=("dmc",),
        epochs=1,
        dmc={"tasks": ["reacher_easy"], "demonstrations": 2, "rollouts": 1},
        image_size=64,
    )
    task.check(EncoderConfig("pixels"))
    (tmp_path / "cell").mkdir()
    result = task.measure(EncoderConfig("pixels"), tmp_path / "cell", Console(quiet=True))
    assert 0 <= result.metrics["final"][0] <= 1
    job = yaml.safe_load((tmp_path / "cell" / "train_policy" / "reacher_easy-100" / "config.yaml").read_text())
    assert (job["env"]["action_repeat"], job["env"]["fps"], job["env"]["image_size"]) == (10, 5, 32)


@pytest.mark.slow
def test_adroit_from_experts_to_a_cell(tmp_path: Path) -> None:
    """An expert that keeps still solves the pens that begin as they shall lie."""
    sizes = [45, 4, 4, 24]
    arrays = {f"weight{layer}": np.zeros((sizes[layer + 1], sizes[layer])) for layer in range(3)}
    arrays |= {f"bias{layer}": np.zeros(sizes[layer + 1]) for layer in range(3)}
    arrays |= {"in_shift": np.zeros(45), "in_scale": np.ones(45), "out_shift": np.zeros(24), "out_scale": np.ones(24)}
    np.savez(tmp_path / "pen.npz", **arrays)
    (task,) = tasks(
        tmp_path / "data",
        Data(adroit=tmp_path),
        suites=("adroit",),
        image_size=32,
        epochs=1,
        adroit={"tasks": ["pen"], "demonstrations": 1, "rollouts": 1},
    )
    task.check(EncoderConfig("pixels"))
    (tmp_path / "cell").mkdir()
    result = task.measure(EncoderConfig("pixels"), tmp_path / "cell", Console(quiet=True))
    assert result.metrics["final"][0] in (0.0, 1.0)
    job = yaml.safe_load((tmp_path / "cell" / "train_policy" / "pen-100" / "config.yaml").read_text())
    assert (job["env"]["episode_length"], job["env"]["camera_names"]) == (100, ["vil_camera"])
