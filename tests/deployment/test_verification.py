"""verify_artifact tells a sound artifact (exit code 0) from another output (1) and from no artifact (2)."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import make_checkpoint, make_store
from forked_scripts import run_script

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.deployment.artifact.loading import load_artifact, seal_archive
from pixio_robot.deployment.export.exporter import ExportOptions, export_policy
from pixio_robot.deployment.export.formats import FORMATS
from pixio_robot.deployment.export.observations import demonstrations
from pixio_robot.deployment.verification import (
    PARITY_TOLERANCE,
    Latency,
    difference_between,
    golden_check,
    largest_difference,
    speed_check,
    tolerance_of,
)


def verify(folder: Path, *arguments: object) -> tuple[int, str]:
    done = run_script("verify_artifact.py", *map(str, arguments), "calls=3", "threads=[1]", cwd=folder)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_sound_artifact_passes(sampler: Path) -> None:
    code, said = verify(sampler, "policy.pt", "checkpoint=checkpoint", "frames=demos.zarr")
    assert code == 0, said
    for words in ("golden pair on cpu", "three observations at once", "on 7 fresh observations", "p99", "peak memory"):
        assert words in said
    assert "within a step" in said
    assert "FAIL" not in said


def test_another_output_fails(sampler: Path, tmp_path: Path) -> None:
    module, metadata = load_artifact(sampler / "policy.pt")
    with torch.no_grad():
        module.action_offset.add_(1e-3)
    torch.jit.save(module, str(tmp_path / "other.pt"))
    seal_archive(tmp_path / "other.pt", metadata)
    code, said = verify(tmp_path, "other.pt")
    assert code == 1, said
    assert "FAIL" in said and "golden pair on cpu" in said


def test_on_a_gpu_float32_is_as_exact_as_its_convolutions(sampler: Path) -> None:
    """The module stays on the CPU: what is tested is what is allowed where."""
    module, _ = load_artifact(sampler / "policy.pt")
    with torch.no_grad():
        module.action_offset.add_(1e-3)
    assert not golden_check(module, "cpu", "float32").passed
    check = golden_check(module, "cuda:0", "float32")
    assert check.passed and "in TF32 (allowed 1e-02)" in check.detail
    with torch.no_grad():
        module.action_offset.add_(1.0)
    assert not golden_check(module, "cuda:0", "float32").passed


def test_another_checkpoint_and_no_artifact_are_bad_input(sampler: Path, tmp_path: Path) -> None:
    code, said = verify(sampler, "demos.zarr/zarr.json")
    assert (code, "is not a pixio-robot artifact" in said) == (2, True), said
    make_checkpoint("pixio_bc", "pixio_tiny16", DemoStore.open(sampler / "demos.zarr"), tmp_path)
    code, said = verify(sampler, "policy.pt", f"checkpoint={tmp_path / 'pixio_bc_pixio_tiny16'}", "frames=demos.zarr")
    assert code == 2, said
    assert "The artifact is a pixio_diffusion, but" in said


def test_a_switch_a_step_early_is_no_broken_conversion() -> None:
    gripper = torch.ones(1, 30, 7)
    gripper[:, 12:, 6] = -1
    early, other, unknown = gripper.clone(), torch.randn(1, 30, 7), torch.full((1, 30, 7), torch.nan)
    early[:, 11, 6] = -1
    assert difference_between(early, gripper, "float32") == 2
    for precision in ("bfloat16", "int8"):
        tolerance = PARITY_TOLERANCE[precision]
        for got in (other, gripper.roll(1, -1), torch.zeros(1, 30, 7), unknown, gripper[:, 1:]):
            assert not difference_between(got, gripper, precision) <= tolerance
        assert difference_between(gripper * (1 + tolerance / 2), gripper, precision) == pytest.approx(tolerance / 2)
    assert difference_between(early, gripper, "int8") <= PARITY_TOLERANCE["int8"]


def test_an_export_that_differs_names_the_number_and_its_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "demos.zarr")
    checkpoint = make_checkpoint("pixio_bc", "pixio_tiny16", store, tmp_path)
    options = ExportOptions(action_names=["x.pos", "y.pos", "gripper.pos"])
    broken = FORMATS["torchscript"].open

    def late(path: Path) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
        module = broken(path)

        def call(observed: dict[str, torch.Tensor]) -> torch.Tensor:
            actions = module(observed)
            actions[..., 1, 2] += 0.25 * torch.arange(1, len(actions) + 1)
            return actions

        return call

    monkeypatch.setitem(FORMATS, "torchscript", dataclasses.replace(FORMATS["torchscript"], open=late))
    said = r"in gripper\.pos of the action for step 1 of a chunk, by 1\.8e\+00 \(observation 6\), where gripper"
    with pytest.raises(UserError, match=said):
        export_policy(checkpoint, store, tmp_path / "policy.pt", options)
    assert not (tmp_path / "policy.pt").exists()
    tokens = torch.zeros(1, 4, 8)
    lost = tokens.clone()
    lost[0, 3, 7] = torch.nan
    assert "most in number 7 of token 3, by inf" in largest_difference(lost, tokens, "encoder")


def test_onnx_is_allowed_the_rounding_of_its_own_kernels() -> None:
    assert tolerance_of("onnx", "float32") > tolerance_of("pt2", "float32") == tolerance_of("torchscript", "float32")


def test_a_precision_that_the_processor_is_slow_in_is_named() -> None:
    slow, fast = Latency("cpu", 1, 40.0, 50.0, 60.0), Latency("cpu", 2, 20.0, 30.0, 40.0)
    assert not speed_check([slow], 50).passed
    assert speed_check([slow, fast], 50).passed
    assert "bfloat16" not in speed_check([slow], 50).detail + speed_check([slow], 50, 0.4).detail
    assert "52.3 times slower in bfloat16" in speed_check([slow], 50, 52.3).detail
    assert "bfloat16" not in speed_check([Latency("cuda", 1, 1.0, 1.0, 1.0)], 50, 52.3).detail


def test_a_folder_without_a_checkpoint_is_named_before_its_demonstrations(sampler: Path) -> None:
    with pytest.raises(UserError, match="model.safetensors"):
        demonstrations(sampler, None)
    with pytest.raises(UserError, match="model.safetensors"):
        export_policy(sampler, DemoStore.open(sampler / "demos.zarr"), sampler / "other.pt")
