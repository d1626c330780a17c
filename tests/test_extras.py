"""The installation with pip, as the front page has it: every extra installs, and what it is for works."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

from pytest import fixture, mark

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "README.md").read_text()
EXTRAS = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in re.findall(r"^\| `.* \|.*\|$", PAGE, re.M)))

USES = {
    "lora": "from pixio_robot.encoders import EncoderConfig, VisionEncoder; VisionEncoder(EncoderConfig(mode='lora'))",
    "pretraining": "import av, webdataset.tariterators, pixio_robot.pretraining.curation.scoring, "
    "pixio_robot.pretraining.sources.lerobot_frames",
    "imagecodecs": "from pixio_robot.demos.store.codecs import check_codec, frame_codecs; "
    "check_codec('jpeg'); frame_codecs('jpegxl', 3); import imagecodecs.numcodecs",
    "remote": "import pixio_robot.deployment.remote.server, pixio_robot.deployment.remote.client, "
    "pixio_robot.deployment.remote.openpi",
    "onnx": "from pixio_robot.deployment.artifact.onnx_format import require_onnx; require_onnx(); "
    "import onnx, onnxruntime, onnxscript",
    "teleoperation": "from pixio_robot.demos.collection.by_hand.operator_window import _import_pygame; _import_pygame()",
    "wandb": "from pixio_robot.engine.curves import import_wandb; import_wandb()",
    "cluster": "from pixio_robot.cli.command_line import parse; from pixio_robot.cli.entry_points import _check_launcher; "
    "_check_launcher(parse(['-m', 'hydra/launcher=submitit_local'], None)); "
    "from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher",
    "adroit": "import gymnasium, lerobot_env_pixio; gymnasium.make('pixio_adroit/pen-v0').reset(seed=0)",
}
"""What each is for, as lines of Python that fail without it."""


@fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Python of a fresh environment, into which the three packages were installed from the clone, by the page's command."""
    python = tmp_path_factory.mktemp("fresh") / "venv" / "bin" / "python"
    subprocess.run([uv(), "venv", "--quiet", "--python", "3.12", str(python.parents[1])], check=True)
    (arguments,) = re.findall(r"^pip install (-e .*)$", PAGE, re.M)
    pip_install(python, *arguments.split())
    return python


def uv() -> str:
    return os.environ.get("UV", "uv")  # the one that runs the tests, where it does


def pip_install(python: Path, *arguments: str) -> None:
    """Install as pip does: the newest versions that are allowed, not those that uv is told of."""
    command = [uv(), "pip", "install", "--no-config", "--quiet", "--python", str(python), *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


def use(python: Path, extra: str) -> subprocess.CompletedProcess[str]:
    lines = ["from pixio_robot.common.errors import exits_on_user_error", "def use():", f"    {USES[extra]}"]
    code = "\n".join([*lines, "exits_on_user_error(use)()"])
    return subprocess.run([python, "-W", "ignore", "-c", code], cwd=python.parent, capture_output=True, text=True)


def test_the_page_names_every_extra() -> None:
    of_packages = {
        name
        for folder in (".", "envs", "policies")
        for name in tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"].get(
            "optional-dependencies", {}
        )
    }
    assert {*EXTRAS} == {*USES} == of_packages - {"lerobot"}  # which the policies bring


@mark.slow
@mark.timeout(1800)
@mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_it_is_for(extra: str, python: Path) -> None:
    before = use(python, extra)
    if before.returncode:  # else LeRobot or a simulator has brought it
        assert f"{extra}]'" in before.stderr.splitlines()[-1], before.stderr
    pip_install(python, "-e", f"{'envs' if extra == 'adroit' else '.'}[{extra}]")
    after = use(python, extra)
    print(f"{extra}: {'already there' if before.returncode == 0 else before.stderr.strip()}; {USES[extra]}")
    assert after.returncode == 0, after.stderr
