"""What a robot must not act on is refused by the scripts themselves: exit code 2, one sentence, nothing sent."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked_scripts import run_script

from pixio_robot.demos import DemoStore, Feature
from pixio_robot.deployment.artifact.loading import read_metadata, seal_archive
from pixio_robot.deployment.export.exporter import ExportOptions, export_policy
from pixio_robot.encoders import EncoderConfig
from pixio_robot.training.policy.building import build_policy, policy_config_from

SIZE = 32
ROBOTS = {
    "lerobot": ("robot=lerobot", "robot.type=pixio_sim", "+robot.env=pixio_pusht", f"+robot.image_size={SIZE}"),
    "sim": ("env=pusht", f"env.image_size={SIZE}", "realtime=false"),
}
METADATA_ENTRY = "extra/metadata.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `policy.pt`, made for PushT as the robots above show it."""
    folder = tmp_path_factory.mktemp("pusht")
    numbers = {"observation.state": 2, "action": 2}
    features = {"observation.images.top": Feature((SIZE, SIZE, 3), "uint8")}
    features.update({key: Feature((size,), "float32") for key, size in numbers.items()})
    store = DemoStore.create(folder / "demos.zarr", features, {"fps": 10, "env": {"type": "toy"}})
    generator = np.random.default_rng(0)
    episode = {key: generator.uniform(0, 512, (6, size)).astype(np.float32) for key, size in numbers.items()}
    frames = generator.integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)
    store.append_episode({"observation.images.top": frames, **episode}, seed=0, success=True, task="push")
    store.close()
    store = DemoStore.open(folder / "demos.zarr")
    fields = {"type": "pixio_bc", "chunk_size": 4, "n_action_steps": 2, "hidden_width": 16}
    built, processors = build_policy(policy_config_from(fields, EncoderConfig(weights="random"), store), store)
    checkpoint = folder / "pretrained_model"
    for part in (built, *processors):
        part.save_pretrained(checkpoint)
    names = ["x.pos", "y.pos"]
    options = ExportOptions(control_rate_hz=10, state_names=names, action_names=names)
    export_policy(checkpoint, store, folder / "policy.pt", options)
    return folder


def tampered(artifact: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Copy an artifact with changed metadata and its old digest."""
    with zipfile.ZipFile(artifact) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith(METADATA_ENTRY):
                metadata = json.loads(content)
                change(metadata)
                content = json.dumps(metadata).encode()
            new.writestr(info, content)


def exported_elsewhere(artifact: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Copy an artifact as if it had been exported with other metadata: the digest fits."""
    with zipfile.ZipFile(artifact) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            if not info.filename.endswith(METADATA_ENTRY):
                new.writestr(info, old.read(info))
    metadata = read_metadata(artifact)
    change(metadata)
    seal_archive(path, metadata)


CASES: dict[str, tuple[Callable[..., None], Callable[[dict[str, Any]], Any], str]] = {
    "newer schema": (
        tampered,
        lambda metadata: metadata.update(schema=99),
        "has schema 99, this version reads 3: update pixio-robot.",
    ),
    "edited": (
        tampered,
        lambda metadata: metadata["action"].update(maximum=[1e6, 1e6]),
        "was damaged or edited since its export (its digest does not match)",
    ),
    "camera missing": (
        exported_elsewhere,
        lambda metadata: metadata["cameras"][0].update(key="observation.images.side"),
        "reads observation.images.side, but the robot offers observation.images.top: connect that camera",
    ),
    "colour order": (
        exported_elsewhere,
        lambda metadata: metadata["cameras"][0].update(colour_order="BGR"),
        "observation.images.top delivers RGB, but the artifact was trained on BGR: reverse the channels",
    ),
    "state length": (
        exported_elsewhere,
        lambda metadata: metadata["state"].update(size=3, names=["x.pos", "y.pos", "z.pos"]),
        "z.pos",
    ),
    "aspect ratio": (
        exported_elsewhere,
        lambda metadata: metadata["cameras"][0].update(width=48),
        f"brings frames of {SIZE}×{SIZE} px, but the artifact reads {SIZE}×48 px or another size of that aspect ratio",
    ),
}


@pytest.mark.parametrize("robot", ["lerobot", pytest.param("sim", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_refused_before_any_action(case: str, robot: str, folder: Path, tmp_path: Path) -> None:
    copy, change, sentence = CASES[case]
    copy(folder / "policy.pt", tmp_path / "policy.pt", change)
    done = run_script("run_policy.py", "artifact=policy.pt", *ROBOTS[robot], cwd=tmp_path)
    said = done.stderr.strip()
    assert done.returncode == 2, done.stdout + done.stderr
    assert sentence in said and len(said.splitlines()) == 1, said
    assert "control periods" not in done.stdout and not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("robot", [pytest.param(robot, marks=pytest.mark.slow) for robot in ROBOTS])
def test_the_artifact_as_it_was_exported_drives_these_robots(robot: str, folder: Path, tmp_path: Path) -> None:
    """Or the refusals above would say nothing."""
    shutil.copy(folder / "policy.pt", tmp_path / "policy.pt")
    shorter = "duration=1" if robot == "lerobot" else "env.episode_length=10"
    done = run_script("run_policy.py", "artifact=policy.pt", shorter, *ROBOTS[robot], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 control periods" in done.stdout


def test_a_server_refuses_an_edited_artifact(folder: Path, tmp_path: Path) -> None:
    tampered(folder / "policy.pt", tmp_path / "policy.pt", lambda metadata: metadata.update(control_rate_hz=100))
    done = run_script("serve_policy.py", "artifact=policy.pt", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "was damaged or edited" in done.stderr and len(done.stderr.strip().splitlines()) == 1
