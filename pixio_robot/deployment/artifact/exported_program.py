"""Artifacts of torch.export (`.pt2`), read with torch alone and without unpickling code."""

import io
import json
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.golden import GoldenArtifact

GOLDEN_FILE = "golden.txt"
# All that torch.export.save writes for a program of tensors. torch.export.load would also unpickle whole objects and
# load native code, if a file had them.
_HARMLESS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/.*|\.format/.*|models/model\.json|extra/[^/]+"
    r"|data/(weights/weight|constants/tensor)_\d+|data/(weights|constants)/model_(weights|constants)_config\.json"
    r"|data/sample_inputs/model\.pt"
)


class ExportedProgram(GoldenArtifact):
    """A program of torch.export."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Load a `.pt2` file, whether or not it has metadata; its device is part of the program and is moved.

        Raises:
            UserError: The file holds more than a program and its tensors, or no golden pair.
        """
        from torch.export.passes import move_to_device_pass

        with zipfile.ZipFile(path) as archive:
            super().__init__(_checked_golden(archive, path))
        with path.open("rb") as file, warnings.catch_warnings():  # by name, torch insists on the ending .pt2
            warnings.filterwarnings("ignore", message="The given buffer is not writable")  # nobody writes to weights
            program = torch.export.load(file)
        if torch.device(device).type != "cpu":
            program = move_to_device_pass(program, device)
        self._device = device
        self._module = program.module()

    def _run(self, observation: dict[str, Tensor]) -> Tensor:
        return self._module({key: value.to(self._device) for key, value in observation.items()})


def _checked_golden(archive: zipfile.ZipFile, path: Path) -> bytes:
    """Return the golden pair's text from an archive that has nothing in it but tensors and text."""
    golden = None
    for name in archive.namelist():
        entry = name.partition("/")[2]
        harmless = _HARMLESS.fullmatch(entry) is not None
        if entry.endswith("_config.json"):
            payloads = json.loads(archive.read(name)).get("config", {}).values()
            harmless = harmless and not any(payload.get("use_pickle") for payload in payloads)
        elif entry.endswith(".pt"):
            harmless = harmless and _is_plain(archive.read(name))
        elif entry == f"extra/{GOLDEN_FILE}":
            golden = archive.read(name)
        if not harmless:
            raise UserError(f"{path} holds {entry}, which is more than a program and its tensors: export it again.")
    if golden is None:
        raise UserError(f"{path} has no golden pair; make an artifact with scripts/export.py.")
    return golden


def _is_plain(content: bytes) -> bool:
    """Tell whether torch reads a saved object without running code of its own."""
    try:
        if content:
            torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # whatever an unpickler raises
        return False
    return True
