"""The file formats in which a core leaves: TorchScript, torch.export, ONNX."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.storage.torch_files import open_torchscript
from pixio_robot.deployment.artifact.exported_program import GOLDEN_FILE, ExportedProgram
from pixio_robot.deployment.artifact.golden import golden_text
from pixio_robot.deployment.artifact.loading import seal_archive
from pixio_robot.deployment.artifact.onnx_format import OnnxArtifact, require_onnx, seal_onnx, write_onnx
from pixio_robot.deployment.export.cores import trace_core
from pixio_robot.deployment.export.script_graphs import opened_scripts
from pixio_robot.deployment.export.shell import CheckedShell, Shell, ShellLayout

Observation = dict[str, Tensor]


@dataclass(frozen=True)
class Content:
    """What goes into a file."""

    core: nn.Module
    layout: ShellLayout
    golden: Observation
    """One observation, as a batch of one row."""
    expected: Tensor
    """What the eager path gives for it."""

    @property
    def two_rows(self) -> Observation:
        """The golden observation twice: exported with one row, one would be taken for the only number there is."""
        return {key: torch.cat([value, value]) for key, value in self.golden.items()}

    def program(self) -> torch.export.ExportedProgram:
        """Return the core in its shell as a program for any number of rows of the golden observation's shapes.

        Raises:
            UserError: The core has a TorchScript encoder in it that cannot be exported so.
        """
        shell = Shell(self.core.eval().requires_grad_(False), self.layout).eval()
        batch = torch.export.Dim("batch", min=1)
        shapes = {"observation": {key: {0: batch} for key in self.golden}}
        with torch.no_grad(), opened_scripts(self.core):
            program = torch.export.export(shell, (self.two_rows,), dynamic_shapes=shapes, strict=False)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # a quarter of a sampler's file, and full of this machine's paths
        return program


def _write_torchscript(path: Path, content: Content) -> None:
    rows, unused = content.two_rows, torch.zeros(1)
    plain = Shell(content.core, content.layout)
    images = [plain.image(rows[camera], index) for index, camera in enumerate(plain.cameras)]
    others = (rows.get(key, unused) for key in ("observation.state", "noise", "task"))
    traced = trace_core(content.core, images, *others)
    shell = CheckedShell(traced, content.layout, content.golden, content.expected)
    # By way of memory: on a full disk torch's own writer ends the process.
    written = io.BytesIO()
    torch.jit.save(torch.jit.script(shell.eval()), written)
    path.write_bytes(written.getbuffer())


def _write_pt2(path: Path, content: Content) -> None:
    golden = {GOLDEN_FILE: golden_text(content.golden, content.expected)}
    written = io.BytesIO()
    torch.export.save(content.program(), written, extra_files=golden)
    path.write_bytes(written.getbuffer())


def _write_onnx(path: Path, content: Content) -> None:
    require_onnx()
    write_onnx(path, content.program(), list(content.golden), golden_text(content.golden, content.expected))


@dataclass(frozen=True)
class Format:
    """How a file is written, opened without metadata on the CPU, and given its metadata with the digest."""

    write: Callable[[Path, Content], None]
    open: Callable[[Path], Callable[[Observation], Tensor]]
    seal: Callable[[Path, Mapping[str, Any]], dict[str, Any]]
    suffix: str
    precisions: tuple[str, ...]


FORMATS = {
    "torchscript": Format(
        _write_torchscript, open_torchscript, seal_archive, ".pt", ("float32", "float16", "bfloat16", "int8")
    ),
    "pt2": Format(_write_pt2, ExportedProgram, seal_archive, ".pt2", ("float32", "float16", "bfloat16")),
    "onnx": Format(_write_onnx, OnnxArtifact, seal_onnx, ".onnx", ("float32",)),
}


def suffix_of(format_: str) -> str:
    """Return how the name of a file of a format ends.

    Raises:
        UserError: There is no such format.
    """
    if format_ not in FORMATS:
        raise UserError(f"Unknown format {format_!r}. {nearest_name(format_, FORMATS)}")
    return FORMATS[format_].suffix
