"""Artifacts read with torch alone: metadata and digest checked, then the module on its device.

An artifact is a TorchScript or torch.export (`.pt2`) file, both of them zip archives, with its metadata
(`pixio_robot.deployment.artifact.metadata` says what that is) among the archive's extra files.

Shape letters: B batch, H action horizon, A action size.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.metadata import SCHEMA_VERSION, check_digest, check_metadata, digest, require_file

_METADATA_FILE = "extra/metadata.json"
_READ_AT_ONCE = 1 << 22


def load_artifact(path: Path, device: str = "cpu") -> tuple[Any, dict[str, Any]]:
    """Load an artifact and its metadata; nothing of the file runs before its digest has been checked.

    Args:
        path: A file of `scripts/export_torchscript.py`; `.onnx` needs the extra `onnx`.
        device: Where to run it, for example `cpu` or `cuda:0`. Observations may lie anywhere.

    Returns:
        The callable module (a dictionary of tensors in, actions or tokens out), which has the golden pair as
        `golden_observation` and `golden_output`; and the metadata.

    Raises:
        UserError: The file is no artifact, from another schema, damaged or edited, or not made for the device.
    """
    if path.suffix == ".onnx":
        from pixio_robot.deployment.artifact.onnx_form import load_onnx

        return load_onnx(path, device)
    metadata = read_metadata(path)
    if device.partition(":")[0] not in metadata["devices"]:
        raise UserError(
            f"{path} ({metadata['precision']}) runs on {' and '.join(metadata['devices'])}, not on {device}: export it "
            f"with another precision, or choose another device."
        )
    try:
        if metadata["form"] == "pt2":
            from pixio_robot.deployment.artifact.exported_program import ExportedProgram

            return ExportedProgram(path, device), metadata
        return open_torchscript(path, device), metadata
    except RuntimeError as error:
        raise UserError(f"torch {torch.__version__} cannot load {path}: {str(error).splitlines()[0]}") from error


def open_torchscript(path: Path, device: str = "cpu") -> torch.jit.ScriptModule:
    """Load a TorchScript file, whether or not it has metadata."""
    return torch.jit.load(str(path), map_location=device)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of an artifact, checked against the digest of the whole file.

    Raises:
        UserError: There is no file, or it is no artifact, from another schema, damaged, or edited since its export.
    """
    require_file(path)
    if path.suffix == ".onnx":
        from pixio_robot.deployment.artifact.onnx_form import read_onnx_metadata

        return read_onnx_metadata(path)
    no_artifact = f"{path} is no pixio-robot artifact; make one with scripts/export_torchscript.py."
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            (own_name,) = [name for name in names if name.partition("/")[2] == _METADATA_FILE]
            metadata = check_metadata(json.loads(archive.read(own_name)), path)
            contents = _contents_hash(archive)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(no_artifact) from error
    check_digest(metadata, contents, path)
    return metadata


def seal_archive(archive: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Add metadata to an archive that torch wrote, with the digest of both; returns them.

    Raises:
        zipfile.BadZipFile: It is no archive.
    """
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as opened:
        root = opened.namelist()[0].partition("/")[0]
        sealed = {**metadata, "schema": SCHEMA_VERSION}
        sealed["digest"] = digest(sealed, _contents_hash(opened))
        opened.writestr(f"{root}/{_METADATA_FILE}", json.dumps(sealed, ensure_ascii=False, indent=1))
    return sealed


def chunk_noise(metadata: Mapping[str, Any], chunk: int, batch_size: int = 1) -> Tensor | None:
    """Return the noise (B, horizon, A) that a policy's rollouts give it for a chunk; None for one that takes none.

    It depends on the number of chunks since the reset alone, so that episodes repeat, and is that of
    `pixio_diffusion` in evaluation.

    Args:
        metadata: Of the artifact.
        chunk: Number of chunks since the episode began, from 0.
        batch_size: B; every row is the same.
    """
    if metadata["noise"] is None:
        return None
    noise_HA = torch.randn(metadata["noise"]["shape"], generator=torch.Generator().manual_seed(chunk))
    return noise_HA.expand(batch_size, -1, -1)


def refusal(error: Exception) -> str:
    """Return the sentence with which a scripted module refused an observation, without the interpreter's trace."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].removeprefix("builtins.ValueError: ").removeprefix("RuntimeError: ") if lines else repr(error)


def _contents_hash(archive: zipfile.ZipFile) -> str:
    """Hash names and contents of all entries but the metadata, whose order does not count."""
    total = hashlib.sha256()
    for name in sorted(archive.namelist()):
        if name.partition("/")[2] == _METADATA_FILE:
            continue
        content = hashlib.sha256()
        with archive.open(name) as entry:
            while block := entry.read(_READ_AT_ONCE):
                content.update(block)
        total.update(f"{name}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def write_atomically[T](path: Path, write: Callable[[Path], T]) -> T:
    """Let a function write a file beside `path`, then move it there; returns what the function returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        result = write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return result
