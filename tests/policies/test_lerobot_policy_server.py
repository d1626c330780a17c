"""LeRobot's own policy server and client drive a robot with a policy of ours, by the lines of the page."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from checkpoints import make_checkpoint
from pages import ROOT, blocks
from pytest import mark
from recorded_dataset import JOINTS

from pixio_robot.demos import DemoStore, Feature

HELPERS = ROOT / "tests" / "helpers"


def reach(path: Path) -> DemoStore:
    """Two episodes of an arm with a camera."""
    size = len(JOINTS)
    features = {
        "observation.images.front": Feature((32, 32, 3), "uint8"),
        "observation.state": Feature((size,), "float32"),
        "action": Feature((size,), "float32"),
    }
    store = DemoStore.create(path, features, {"fps": 20, "names": {"action": JOINTS, "observation.state": JOINTS}})
    generator = np.random.default_rng(0)
    for seed in range(2):
        numbers = generator.normal(0, 5, (7, size)).astype(np.float32)
        frames = generator.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
        episode = {"observation.images.front": frames, "observation.state": numbers, "action": numbers}
        store.append_episode(episode, seed=seed, success=True, task="reach")
    store.close()
    return DemoStore.open(path)


@mark.slow
def test_the_pages_lines_serve_our_policies_to_lerobots_client(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("pixio_act", "pixio_tiny16", reach(tmp_path / "reach.zarr"), tmp_path)
    (lines,) = [text for text in blocks(ROOT / "policies" / "README.md", "python") if "policy_server.serve()" in text]
    (tmp_path / "serve.py").write_text(lines)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    notes = tmp_path / "actions.jsonl"
    robot = [f"--robot.{field}" for field in ("type=noting", "image_size=32", f"notes={notes}", "camera_names=[front]")]
    client = ["-m", "lerobot.async_inference.robot_client", f"--server_address=127.0.0.1:{port}", "--task=reach"]
    client += [
        f"--pretrained_name_or_path={checkpoint}",
        "--policy_type=pixio_act",
        "--actions_per_chunk=4",
        "--fps=10",
    ]
    environment = os.environ | {"PYTHONPATH": str(HELPERS / "robot_plugin"), "HF_HUB_OFFLINE": "1"}
    started: list[subprocess.Popen] = []
    try:
        for number, arguments in enumerate(
            (["serve.py", f"--port={port}"], [*client, *robot, f"--robot.joints=[{','.join(JOINTS)}]"])
        ):
            with (tmp_path / f"{number}.log").open("w") as log:
                started.append(
                    subprocess.Popen(
                        [sys.executable, *arguments],
                        cwd=tmp_path,
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )
        for _ in range(300):
            if notes.exists() and len(notes.read_text().splitlines()) > 12:
                break
            assert started[0].poll() is None and started[1].poll() is None, (tmp_path / "1.log").read_text()
            time.sleep(1)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
    sent = np.array([json.loads(line) for line in notes.read_text().splitlines()[:12]])
    assert sent.shape == (12, len(JOINTS)) and np.isfinite(sent).all()
    assert np.ptp(sent, axis=0).min() > 0  # several actions of chunks, not one again and again
