"""scripts/benchmark_pretraining.py runs and says what it found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pixio_robot.cli.jobs import CONFIG_FOLDER

SCRIPT = CONFIG_FOLDER.parent / "scripts" / "benchmarks" / "benchmark_pretraining.py"


@pytest.mark.slow  # compiles two shapes of blocks in two precisions
def test_the_ladder_is_printed_and_written(tmp_path: Path) -> None:
    small = ["image_size=32", "mask_block=1", "batch_size=4", "accumulation=2", "decoder_dim=32", "decoder_depth=1"]
    quick = ["steps=2", "rounds=1", "image_files=8", "decoder_heads=2", "output=ladder.json"]
    done = subprocess.run([sys.executable, str(SCRIPT), *small, *quick], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "plain trainer" in done.stdout
    assert "Matmul ceiling" in done.stdout
    record = json.loads((tmp_path / "ladder.json").read_text())
    assert all(row["loss_deviation"] <= row["tolerance"] for row in record["rows"])
    # A processor without instructions for bfloat16 takes fifty times as long for it.
    assert ("bfloat16" in [row["rung"] for row in record["rows"]]) != ("bfloat16 is left out" in done.stdout)
    assert ("both in bfloat16" in record["ratios"]) != ("bfloat16 is left out" in done.stdout)
