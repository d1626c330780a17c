"""Artifacts of torch.export (`.pt2`), read with torch alone and without unpickling code."""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.golden import check_like, read_golden

GOLDEN_FILE = "golden.txt"
# All that torch.export.save writes for a program of tensors. torch.export.load would also unpickle whole objects and
# load native code, if a file had them.
_HARMLESS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/.*|\.format/.*|models/model\.json|extra/[^/]+"
    r"|data/(weights/weight|constants/tensor)_\d+|data/(weights|constants)/model_(weights|constants)_config\.json"
    r"|data/sample_inputs/model\.pt"
)


class ExportedProgram:
    """A program of torch.export, called as a TorchScript artifact is."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Load a `.pt2` file, whether or not it has metadata; its device is part of the program and is moved.

        Raises:
            UserError: The file holds more than a program and its tensors.
        """
        from torch.export.passes import move_to_device_pass

        with zipfile.ZipFile(path) as archive:
            self.golden_observation, self.golden_output = _read_checked(archive, path)
        with path.open("rb") as file, warnings.catch_warnings():  # by name, torch insists on the ending .pt2
            warnings.filterwarnings("ignore", message="The given buffer is not writable")  # nobody writes to weights
            program = torch.export.load(file)
        if torch.device(device).type != "cpu":
            program = move_to_device_pass(program, device)
        self._device = device
        self._module = program.module()

    @torch.no_grad()
    def __call__(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return actions (B, H, A) in raw units, or tokens (B, N, D).

        Raises:
            UserError: An input is missing, or of another dtype or shape than the golden observation's.
        """
        check_like(self.golden_observation, observation)
        return self._module({key: observation[key].to(self._device) for key in self.golden_observation})


def _read_checked(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Return the golden pair of an archive that has nothing in it but tensors and text."""
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
            golden = read_golden(archive.read(name))
        if not harmless:
            raise UserError(f"{path} holds {entry}, which is more than a program and its tensors: export it again.")
    if golden is None:
        raise UserError(f"{path} has no golden pair; make an artifact with scripts/export_torchscript.py.")
    return golden


def _is_plain(content: bytes) -> bool:
    """Tell whether torch reads a saved object without running code of its own."""
    if not content:
        return True
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # whatever an unpickler raises
        return False
    return True
