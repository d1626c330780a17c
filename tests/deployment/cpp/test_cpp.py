"""The C++ program builds against the installed torch, gives an artifact's golden output, and tells files apart."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from checkpoints import make_checkpoint, make_store

import pixio_robot
from pixio_robot.deployment.artifact.loading import load_artifact, seal_archive
from pixio_robot.deployment.artifact.metadata import SCHEMA_VERSION
from pixio_robot.deployment.export.exporter import ExportOptions, export_policy
from pixio_robot.deployment.verification import PARITY_TOLERANCE

SOURCE = Path(pixio_robot.__file__).parent / "deployment" / "cpp"


def test_schema_and_tolerances_are_those_of_python() -> None:
    code = (SOURCE / "run_artifact.cpp").read_text()
    schema = re.search(r"kSchemaVersion = (\d+);", code)
    tolerances = dict(re.findall(r'\{"(\w+)", ([\de.-]+)\}', code))
    assert schema is not None and int(schema[1]) == SCHEMA_VERSION
    assert {precision: float(number) for precision, number in tolerances.items()} == PARITY_TOLERANCE


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("cmake", "g++", "make"):
        assert shutil.which(tool), f"{tool} is missing; .ci/run installs it"
    build = tmp_path_factory.mktemp("build")
    settings = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"]
    for command in (["cmake", "-S", str(SOURCE), "-B", str(build), *settings], ["cmake", "--build", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "run_artifact"


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow  # the compiler takes most of a minute over torch's headers
def test_golden_output_in_cpp(program: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "demos.zarr")
    for policy, precision in (("pixio_act", "float32"), ("pixio_diffusion", "int8")):
        checkpoint = make_checkpoint(policy, "pixio_tiny16", store, tmp_path)
        path = tmp_path / f"{policy}.pt"
        export_policy(checkpoint, store, path, ExportOptions(precision=precision))
        done = run(program, path, "--calls", 3)
        assert done.returncode == 0, done.stderr
        values = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith("camera"))
        assert (values["policy"], values["precision"]) == (policy, precision)
        assert float(values["difference"]) <= PARITY_TOLERANCE[precision]
        assert "p99" in values["latency"]

    module, metadata = load_artifact(tmp_path / "pixio_act.pt")
    with torch.no_grad():
        module.action_offset.add_(1e-3)
    torch.jit.save(module, str(tmp_path / "other.pt"))
    seal_archive(tmp_path / "other.pt", metadata)
    assert run(program, tmp_path / "other.pt", "--calls", 1).returncode == 1

    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(tmp_path / "plain.pt"))
    for arguments in ([tmp_path / "plain.pt"], [tmp_path / "absent.pt"], [], ["x.pt", "--threads", "0"]):
        done = run(program, *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
