"""Which device renders: as clusters set it, and a device that is not there."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

LIFT = "from lerobot_env_pixio.simulators.simulation import import_robosuite; import_robosuite(); import os; "
RENDER = (
    "import mujoco; from lerobot_env_pixio.rendering.frames import offscreen_renderer; "
    "offscreen_renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 16)"
)


def run(code: str, settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> subprocess.CompletedProcess[str]:
    """In a process of its own: MuJoCo chooses its device once."""
    for name, value in {"MUJOCO_GL": "egl", **settings}.items():
        monkeypatch.setenv(name, value)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("visible", ["3", "GPU-4d5b2c1a", "1,2"])
def test_robosuite_loads_where_cuda_and_egl_count_otherwise(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = LIFT + RENDER + "; assert os.environ['MUJOCO_EGL_DEVICE_ID'] == '0'"
    done = run(code, {"CUDA_VISIBLE_DEVICES": visible, "MUJOCO_EGL_DEVICE_ID": "0"}, monkeypatch)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("device", "there"), [("97", "EGL devices 0 to"), ("GPU-4d5b", "expected the number")])
def test_a_device_that_is_not_there_is_called_that(device: str, there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    last = run(RENDER, {"MUJOCO_EGL_DEVICE_ID": device}, monkeypatch).stderr.strip().splitlines()[-1]
    assert f"MUJOCO_EGL_DEVICE_ID={device} is no device that can render here" in last
    assert there in last
    assert "apt-get" not in last
