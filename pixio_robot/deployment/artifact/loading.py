"""Artifacts read with torch alone: metadata and digest checked, then the module on its device.

An artifact is a TorchScript or torch.export (`.pt2`) file, both of them zip archives, with its metadata
(`pixio_robot.deployment.artifact.metadata` says what that is) among the archive's extra files; or an ONNX file.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.torch_files import open_torchscript
from pixio_robot.deployment.artifact.exported_program import ExportedProgram
from pixio_robot.deployment.artifact.metadata import check_metadata, digest, no_artifact, sealed
from pixio_robot.deployment.artifact.onnx_format import OnnxArtifact, read_onnx

_METADATA_FILE = "extra/metadata.json"
_READ_AT_ONCE = 1 << 22


def load_artifact(path: Path, device: str = "cpu") -> tuple[Any, dict[str, Any]]:
    """Load an artifact and its metadata; nothing of the file runs before its digest has been checked.

    Args:
        path: A file of `scripts/export.py`; `.onnx` needs the extra `onnx`.
        device: Where to run it, for example `cpu` or `cuda:0`. Observations may lie anywhere.

    Returns:
        The callable module (a dictionary of tensors in, actions or tokens out), which has the golden pair as
        `golden_observation` and `golden_output`; and the metadata.

    Raises:
        UserError: The file is no artifact, from another schema, damaged or edited, or not made for the device.
    """
    metadata = read_metadata(path)
    if device.partition(":")[0] not in metadata["devices"]:
        raise UserError(
            f"{path} ({metadata['precision']}) runs on {' and '.join(metadata['devices'])}, not on {device}: export it "
            f"with another precision, or choose another device."
        )
    opens = {"pt2": ExportedProgram, "onnx": OnnxArtifact}.get(metadata["form"], open_torchscript)
    try:
        return opens(path, device), metadata
    except RuntimeError as error:
        raise UserError(
            f"{path} cannot be loaded by torch {torch.__version__}: {str(error).splitlines()[0]}"
        ) from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of an artifact, checked against the digest of the whole file.

    Raises:
        UserError: There is no file, or it is no artifact, from another schema, damaged, or edited since its export.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}; scripts/export.py makes artifacts.")
    described, contents_hash = read_onnx(path) if path.suffix == ".onnx" else _read_archive(path)
    metadata = check_metadata(described, path)
    if metadata["digest"] != digest(metadata, contents_hash):
        raise UserError(f"{path} was damaged or edited since its export (its digest does not match): export it again.")
    return metadata


def seal_archive(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Add metadata to an archive that torch wrote, with the digest of both; returns them."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        described = sealed(metadata, _contents_hash(archive))
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/{_METADATA_FILE}", json.dumps(described, ensure_ascii=False, indent=1))
    return described


def _read_archive(path: Path) -> tuple[object, str]:
    """Return what an archive says of itself, unchecked, and the hash of everything else in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            (own_name,) = [name for name in archive.namelist() if name.partition("/")[2] == _METADATA_FILE]
            return json.loads(archive.read(own_name)), _contents_hash(archive)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise no_artifact(path) from error


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
