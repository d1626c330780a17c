import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pixio_robot.demos import DemoStore, Feature

SCRIPT = Path(__file__).parents[3] / "scripts" / "benchmarks" / "benchmark_demos.py"
FEATURES = {
    "observation.images.front": Feature((64, 64, 3), "uint8"),
    "observation.state": Feature((3,), "float32"),
    "action": Feature((2,), "float32"),
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_windows_of_all_three_are_measured(tmp_path):
    store = DemoStore.create(tmp_path / "demos.zarr", FEATURES, {"fps": 10})
    for number in range(3):
        episode = {key: np.full((20, *feature.shape), number, feature.dtype) for key, feature in FEATURES.items()}
        store.append_episode(episode, seed=number, success=True, task="look")
    store.close()
    arguments = ["windows.rounds=2", "windows.seconds=0.2", "windows.batch_size=8", f"output={tmp_path / 'out'}"]
    done = run(f"path={store.path}", *arguments)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out/windows.json").read_text())
    assert {name: len(rates) for name, rates in record["samples_per_second"].items()} == {
        "store": 2,
        "memory map": 2,
        "LeRobotDataset": 2,
    }
    rates = record["samples_per_second"]
    assert record["store_to_lerobot"] == [
        ours / theirs for ours, theirs in zip(rates["store"], rates["LeRobotDataset"])
    ]
    assert "of LeRobot's dataset" in done.stdout


@pytest.mark.slow
def test_memory_does_not_grow_with_the_store(tmp_path):
    done = run("mode=memory", "memory.megabytes=[100,1000]", "memory.batches=60", f"output={tmp_path}")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "memory.json").read_text())
    assert record["stores"][1]["store_bytes"] > 9e8
    assert abs(record["growth"]) < 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]  # the stores are deleted
