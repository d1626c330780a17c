"""The forms in which a core leaves: TorchScript, torch.export, ONNX."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixio_robot.deployment.artifact import onnx_form
from pixio_robot.deployment.artifact.artifact import open_torchscript, seal_archive
from pixio_robot.deployment.artifact.exported_program import GOLDEN_FILE, ExportedProgram
from pixio_robot.deployment.artifact.golden import write_golden
from pixio_robot.deployment.export.cores import trace_core
from pixio_robot.deployment.export.script_graphs import opened_scripts
from pixio_robot.deployment.export.shell import CheckedShell, Shell, ShellLayout

Observation = Mapping[str, Tensor]


@dataclass(frozen=True)
class Form:
    """One form: how a file of it is written, opened and given its metadata."""

    write: Callable[[Path, nn.Module, ShellLayout, Observation, Observation, Tensor], None]
    """Takes path, core, layout, an example of several rows, the golden observation and the golden output."""
    open: Callable[[Path], Callable[[Observation], Tensor]]
    """Opens a file that has no metadata yet, on the CPU."""
    seal: Callable[[Path, Mapping[str, Any]], dict[str, Any]]
    """Adds the metadata with its digest, and returns both."""
    precisions: tuple[str, ...]


def _write_torchscript(
    path: Path, core: nn.Module, layout: ShellLayout, example: Observation, golden: Observation, expected: Tensor
) -> None:
    rows = _two_rows(example)
    plain = Shell(core, layout)
    images = [plain.image(rows[camera], index) for index, camera in enumerate(layout.cameras)]
    unused = torch.zeros(1)
    traced = trace_core(core, images, rows.get("observation.state", unused), rows.get("noise", unused))
    scripted = torch.jit.script(CheckedShell(traced, layout, dict(golden), expected).eval())
    torch.jit.save(scripted, str(path))


def exported_program(core: nn.Module, layout: ShellLayout, example: Observation) -> torch.export.ExportedProgram:
    """Return the core in its shell as a program for any number of rows of the example's shapes.

    Raises:
        UserError: The core has a TorchScript encoder in it that cannot be exported so.
    """
    shell = Shell(core.eval().requires_grad_(False), layout).eval()
    rows = _two_rows(example)
    batch = torch.export.Dim("batch", min=1)
    shapes = {"observation": {key: {0: batch} for key in rows}}
    with torch.no_grad(), opened_scripts(core):
        program = torch.export.export(shell, (rows,), dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # a quarter of a sampler's file, and full of this machine's paths
    return program


def _write_pt2(
    path: Path, core: nn.Module, layout: ShellLayout, example: Observation, golden: Observation, expected: Tensor
) -> None:
    content = write_golden(golden, expected)
    with path.open("wb") as file:
        torch.export.save(exported_program(core, layout, example), file, extra_files={GOLDEN_FILE: content})


def _write_onnx(
    path: Path, core: nn.Module, layout: ShellLayout, example: Observation, golden: Observation, expected: Tensor
) -> None:
    onnx_form.require_onnx()
    program = exported_program(core, layout, example)
    onnx_form.write_onnx(path, program, list(example), write_golden(golden, expected))


def _two_rows(example: Observation) -> dict[str, Tensor]:
    """Return two rows of an example: one alone would be taken for the only number of rows there is."""
    return {key: torch.cat([value, value])[:2] for key, value in example.items()}


FORMS = {
    "torchscript": Form(_write_torchscript, open_torchscript, seal_archive, ("float32", "float16", "bfloat16", "int8")),
    "pt2": Form(_write_pt2, ExportedProgram, seal_archive, ("float32", "float16", "bfloat16")),
    "onnx": Form(_write_onnx, onnx_form.OnnxArtifact, onnx_form.seal_onnx, ("float32",)),
}
