"""Artifacts run where nothing is installed but torch, numpy and what these two need."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import pixio_robot

PACKAGE = Path(pixio_robot.__file__).parent
ON_THE_ROBOT = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from pixio_robot.deployment.artifact import chunk_noise, load_artifact
module, metadata = load_artifact(Path({file!r}))
difference = (module(module.golden_observation) - module.golden_output).abs().max().item()
assert difference <= 1e-5, difference
found = [name for name in ("timm", "lerobot", "zarr", "hydra", "rich", "safetensors", "pydantic") if name in sys.modules]
assert not found, found
try:
    import timm
except ModuleNotFoundError:
    print(metadata["policy"])
"""


def requirements(*names: str) -> set[str]:
    """Return distributions that are installed and that these need, themselves included."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        waiting += [match[0] for text in needed if "extra ==" not in text and (match := re.match(r"[\w.-]+", text))]
    return found


def test_beside_torch_and_numpy_alone(sampler: Path, tmp_path: Path) -> None:
    """Links to these packages are all that the interpreter can import, its own library aside."""
    for name in requirements("torch", "numpy"):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            link = tmp_path / top
            if not link.exists() and not top.endswith((".dist-info", ".pth")) and top != "__pycache__":
                link.symlink_to(Path(str(distribution.locate_file(top))))
    (tmp_path / "pixio_robot").symlink_to(PACKAGE)
    code = ON_THE_ROBOT.format(path=[str(tmp_path)], file=str(sampler / "policy.pt"))
    done = subprocess.run([sys.executable, "-I", "-S", "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "pixio_diffusion"


@pytest.mark.slow
def test_in_an_environment_of_its_own(sampler: Path, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    version = torch.__version__.partition("+")[0]
    numpy = f"numpy=={metadata.version('numpy')}"
    install = ["uv", "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, f"torch=={version}", numpy], check=True)
    subprocess.run([*install, "--no-deps", str(PACKAGE.parent)], check=True)
    code = ON_THE_ROBOT.format(path=[], file=str(sampler / "policy.pt"))
    done = subprocess.run([str(python), "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "pixio_diffusion"
