"""The command `pixio`: what it lists, how it runs a job, and what the wheel brings for it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from forked_scripts import ROOT, run_python, run_script

from pixio_robot.cli.command import main, overview
from pixio_robot.cli.jobs import GROUPS, job_file, job_files, summaries
from pixio_robot.common import commands
from pixio_robot.common.errors import exits_on_user_error, missing_extra

COMMAND = ["-m", "pixio_robot.cli.command"]


def test_every_job_is_in_a_group_and_has_one_line() -> None:
    groups = summaries()
    assert "More" not in groups  # a new job has its place in GROUPS
    assert {name for names in GROUPS.values() for name in names} <= job_files().keys()
    lines = overview().splitlines()
    for found in groups.values():
        for name, summary in found.items():
            assert summary.endswith(".")
            assert [line for line in lines if line.split() and line.split()[0] == name and line.endswith(summary)]


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_list_needs_neither_torch_nor_hydra(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv[1:] = {arguments}; from pixio_robot.cli.command import main; main(); "
        "assert not {'torch', 'hydra', 'pydantic', 'lerobot'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Train a policy\n  train_policy " in done.stdout


def test_a_wrong_job_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pixio", "tran_policy"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "Did you mean 'train_policy'?" in capsys.readouterr().err


def test_a_job_gets_the_command_line_as_its_script_does(tmp_path: Path) -> None:
    done = run_python(*COMMAND, "train_policy", "--cfg", "job", "trainer.steps=3", cwd=tmp_path)
    script = run_script("train_policy.py", "--cfg", "job", "trainer.steps=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == script.stdout
    wrong = run_python(*COMMAND, "doctor", "output_root=null", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: output_root")


def test_the_older_name_of_the_export_is_the_same_job(tmp_path: Path) -> None:
    assert job_file("export_torchscript").name == "export_torchscript.py"
    assert "export_torchscript" not in job_files()
    older, newer = (run_script(name, "--help", cwd=tmp_path) for name in ("export_torchscript.py", "export.py"))
    assert older.returncode == 0, older.stderr
    assert older.stdout == newer.stdout


def test_examples_name_the_command_where_there_is_no_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "uv run scripts/doctor.py output_root=a"
    assert commands.as_called_here(text) == text
    monkeypatch.setattr(commands, "IN_WHEEL", True)
    assert commands.as_called_here(text) == "pixio doctor output_root=a"
    assert (
        commands.as_called_here("convert it with scripts/convert_demos.py.") == "convert it with pixio convert_demos."
    )


def test_a_reader_that_stops_reading_ends_a_job_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        with pytest.raises(SystemExit) as caught:
            exits_on_user_error(print)("row\n" * 10_000)
    assert caught.value.code == 1


def test_a_broken_connection_is_no_reader_that_stops_reading() -> None:
    @exits_on_user_error
    def job() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        job()


@pytest.mark.slow  # builds with uv, which fetches hatchling
def test_the_wheel_has_configs_and_scripts_and_no_benchmarks(tmp_path: Path) -> None:
    subprocess.run(["uv", "build", "--wheel", "--quiet", "-o", str(tmp_path)], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    ours = {file.name for file in (ROOT / "scripts").glob("*.py")}
    assert {Path(name).name for name in names if name.startswith("pixio_robot/scripts/")} == ours
    configs = {str(file.relative_to(ROOT)) for file in (ROOT / "configs").rglob("*.yaml")}
    assert {name.removeprefix("pixio_robot/") for name in names if "/configs/" in name} == configs
    assert [name for name in names if name.endswith("README.md") or "benchmarks" in name] == []


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("lerobot.envs", "pip install 'pixio-robot[lerobot]'"),
        ("pyarrow", "pip install 'pixio-robot[pretraining]'"),
        ("websockets", "pip install 'pixio-robot[remote]'"),
        ("onnx", "pip install 'pixio-robot[onnx]'"),
        ("lerobot_policy_pixio", "pip install lerobot_policy_pixio (in a clone: pip install -e policies)"),
    ],
)
def test_an_extra_that_is_missing_is_a_sentence(
    module: str, advice: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @exits_on_user_error
    def job() -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    with pytest.raises(SystemExit) as caught:
        job()
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"error: This needs {module.partition('.')[0]}, which is not installed: {advice}.\n"
    )


def test_a_module_that_is_no_extra_is_no_users_mistake() -> None:
    assert missing_extra("torch") is None
    assert missing_extra("onn") is None


def test_what_lerobot_brings_is_lerobots_extra() -> None:
    assert "pip install 'pixio-robot[lerobot]'" in (missing_extra("draccus.utils") or "")
