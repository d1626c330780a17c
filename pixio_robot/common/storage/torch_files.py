"""Zip archives that torch reads (TorchScript, torch.export, torch.save), looked at before torch does what they say.

TorchScript is a program, and part of it runs while it is loaded. What is refused here is what reaches beyond the
program: operators that read or write files, call Python or other computers, or write to the terminal. How much memory
and time a program takes, and what torch does with damaged bytes, is not looked at.
"""

import collections
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.jit._recursive import wrap_cpp_module

from pixio_robot.common.errors import UserError, printable

_MAGIC = b"PK\x03\x04"
"""At the beginning, since torch takes a file of its flatbuffer format for what it is, whatever archive is behind it."""

_MOST_PACKED_BYTES = 1 << 27

_TORCHSCRIPT = re.compile(
    r"(data|constants|traced_inputs)(\.pkl|/\d+)|version|byteorder|\.data/\w+|\.format_version|\.storage_alignment"
    r"|code/[\w/.]+\.py(\.debug_pkl)?|extra/.*"
)

# Of the operators that torch registers, those that read or write files, run Python, call other computers or print.
_REACHING = (
    *("aten::save", "aten::from_file", "aten::_print", "debugprims::load_tensor"),
    *("prim::Print", "prim::PythonOp", "prim::IgnoredPythonOp"),
    *("prim::rpc_async", "prim::rpc_sync", "prim::rpc_remote"),
)
_REACHING_WORDS = re.compile(
    rb"(?<![A-Za-z0-9_])(save|from_file|_print|load_tensor|print|rpc_async|rpc_sync|rpc_remote)(?![A-Za-z0-9_])"
)
# Bits of torch's own classes of quantised weights; others of its classes in C++ open files and connections.
_HARMLESS_CLASSES = "__torch__.torch.classes.quantized."
_OTHER_CLASSES = re.compile(rb"torch\s*\.\s*classes(?!\.quantized\b)")
_PLAIN_ATTRIBUTE = re.compile(rb"getattr\([\w.]+, \"\w+\"\)")


def open_torchscript(path: Path, device: str = "cpu") -> torch.jit.ScriptModule:
    """Load a TorchScript file, unless it holds more than arithmetic.

    Raises:
        UserError: It is no TorchScript file, or has an operator in it that reaches beyond the program.
    """
    reader, names = open_archive(path, _TORCHSCRIPT, f"{path} is no TorchScript file")
    if "constants.pkl" not in names:
        raise UserError(f"{path} is no TorchScript file but one of weights, which go with encoder.name=<timm name>.")
    code = [reader.get_record(name) for name in names if name.endswith(".py")]
    if any(b"__setstate__" in text for text in code):
        _check_what_runs_at_load(path, code)
    native: Any = torch._C  # whose stubs do not know all of it
    unit = native.CompilationUnit()
    try:
        module = native.import_ir_module(unit, str(path), torch.device(device), {}, False)
        graphs = [function.graph for function in unit.get_functions()]
    except RuntimeError as error:
        reason = printable(str(error).strip().splitlines()[0])
        raise UserError(f"{path} cannot be loaded by torch {torch.__version__}: {reason}") from error
    for graph in graphs:
        for kind in _REACHING:
            if graph.findAllNodes(kind):
                raise _reaches(path, kind)
        for node in graph.findAllNodes("prim::CreateObject"):
            kind = str(node.output().type().annotation_str)
            if ".torch.classes." in kind and not kind.startswith(_HARMLESS_CLASSES):
                raise _reaches(path, kind)
    return wrap_cpp_module(module)


def open_archive(path: Path, known: re.Pattern[str], otherwise: str) -> tuple[Any, list[str]]:
    """Open an archive with torch's own reader, after it has been seen to hold nothing unknown, nothing twice and no bomb.

    Args:
        path: The file.
        known: What the names of members, below the archive's one folder, must match.
        otherwise: How the sentence begins that says what it is not.

    Returns:
        torch's reader, whose `get_record` takes the names, and the names.

    Raises:
        UserError: It is no such archive.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise UserError(f"{otherwise}: it does not begin as torch's archives do.")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        twice = collections.Counter(member.filename.casefold() for member in members).most_common(1)
        if twice and twice[0][1] > 1:
            raise UserError(f"{otherwise}: it holds {printable(twice[0][0])} twice.")
        reader: Any = torch._C.PyTorchFileReader(str(path))
        names = list(reader.get_all_records())
        offsets = [reader.get_record_header_offset(name) for name in names]
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{otherwise}: {printable(str(error).strip().splitlines()[0])}") from error
    # Two readers of one file may be shown two lists of members: torch reads by its own, and Python's digest by the other.
    folder = members[0].filename.partition("/")[0] if members else ""
    seen = [(f"{folder}/{name}", offset) for name, offset in zip(names, offsets, strict=True)]
    if seen != [(member.filename, member.header_offset) for member in members]:
        raise UserError(f"{otherwise}: its list of members can be read in two ways.")
    for name in names:
        if known.fullmatch(name) is None:
            raise UserError(f"{otherwise}: it holds {printable(name)}, which torch does not write.")
    # torch compresses code and nothing else.
    packed = sum(member.file_size for member in members if member.compress_type != zipfile.ZIP_STORED)
    if packed > _MOST_PACKED_BYTES or sum(member.compress_size for member in members) > path.stat().st_size:
        raise UserError(f"{otherwise}: its members are larger than the file can hold.")
    return reader, names


def check_undamaged(path: Path) -> None:
    """Check the values in an archive against the sums that zip keeps of them, which torch writes and does not read.

    A file that is no archive passes, and so does what `torch.serialization.set_crc32_options(False)` wrote without sums.

    Raises:
        UserError: Some have changed.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.CRC == 0 or member.compress_type != zipfile.ZIP_STORED:
                    continue
                with archive.open(member) as content:
                    while content.read(1 << 20):
                        pass
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{path} is damaged: its values are not those that were written ({printable(str(error))}); copy or make it again."
        ) from error


def _check_what_runs_at_load(path: Path, code: list[bytes]) -> None:
    """Check code whose `__setstate__` runs before its graphs can be looked at, by the words in it.

    An operator is called by its name, or by a text with its name in `getattr`; honest code writes neither otherwise.
    """
    for text in code:
        word = _REACHING_WORDS.search(text)
        if word is not None:
            raise _reaches(path, word[0].decode())
        if _OTHER_CLASSES.search(text) or b"\\" in text.replace(b"\\n", b""):
            raise _reaches(path, "__setstate__")
        if text.count(b"getattr") != len(_PLAIN_ATTRIBUTE.findall(text)):
            raise _reaches(path, "getattr")


def _reaches(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} was not loaded: it holds {what}, which may reach files, other programs or the terminal, and an encoder "
        f"or a policy needs arithmetic alone. Have it traced or scripted again without."
    )
