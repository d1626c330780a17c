"""Artifacts of torch.export (`.pt2`), read with torch alone, after nothing was found in them that torch would run."""

import io
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError, printable
from pixio_robot.common.storage.documents import parse_json
from pixio_robot.common.storage.torch_files import open_archive
from pixio_robot.deployment.artifact.golden import GoldenArtifact
from pixio_robot.deployment.artifact.program_text import check_program

GOLDEN_FILE = "golden.txt"
# All that torch.export.save writes for a program of tensors. torch.export.load would also unpickle whole objects and
# load native code, if a file had them.
_KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format/\w+|models/model\.json|extra/[^/]+"
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

        super().__init__(_checked_golden(path))
        try:
            with path.open("rb") as file, warnings.catch_warnings():  # by name, torch insists on the ending .pt2
                warnings.filterwarnings(
                    "ignore", message="The given buffer is not writable"
                )  # nobody writes to weights
                program = torch.export.load(file)
            if torch.device(device).type != "cpu":
                program = move_to_device_pass(program, device)
            self._device = device
            self._module = program.module()
        except Exception as error:  # whatever torch finds in a program that is none
            reason = printable((str(error).strip() or type(error).__name__).splitlines()[0])
            raise UserError(f"{path} cannot be loaded by torch {torch.__version__}: {reason}") from error

    def _run(self, observation: dict[str, Tensor]) -> Tensor:
        return self._module({key: value.to(self._device) for key, value in observation.items()})


def _checked_golden(path: Path) -> bytes:
    """Return the golden pair's text from an archive that has nothing in it but tensors and arithmetic."""
    reader, names = open_archive(path, _KNOWN, f"{path} is no .pt2 file")
    for name in names:
        if name == "models/model.json":
            check_program(parse_json(reader.get_record(name), f"{name} in {path}"), path)
        elif name.endswith("_config.json"):
            _check_payloads(parse_json(reader.get_record(name), f"{name} in {path}"), reader, name, path)
        elif name.endswith(".pt") and not _is_plain(reader.get_record(name)):
            raise UserError(f"{path} holds {name}, which is more than tensors: export it again.")
    if f"extra/{GOLDEN_FILE}" not in names:
        raise UserError(f"{path} has no golden pair; make an artifact with scripts/export.py.")
    return reader.get_record(f"extra/{GOLDEN_FILE}")


def _check_payloads(config: object, reader: torch._C.PyTorchFileReader, name: str, path: Path) -> None:
    """Check that what a program's tensors lie in holds them, without pickled ones."""
    try:
        for payload in config["config"].values():  # type: ignore[index]
            meta = payload["tensor_meta"]
            assert payload["use_pickle"] is False
            content = reader.get_record(f"{name.rpartition('/')[0]}/{payload['path_name']}")
            sizes = [size["as_int"] for size in meta["sizes"]]
            assert content or 0 in sizes  # torch makes zeros of this size in place of what is not there
    except (AssertionError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} holds {name}, which describes more than tensors: export it again.") from error


def _is_plain(content: bytes) -> bool:
    """Tell whether torch reads a saved object without running code of its own."""
    try:
        if content:
            torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # whatever an unpickler raises
        return False
    return True
