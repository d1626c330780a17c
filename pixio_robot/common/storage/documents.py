"""JSON and YAML that somebody else may have written, or half written: a value, or a sentence that names the file."""

import json
from pathlib import Path
from typing import Any

from pixio_robot.common.errors import UserError, printable

_MOST_BYTES = 1 << 27
_MOST_VALUES = 1 << 20


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Return what a JSON file says.

    Raises:
        UserError: The file cannot be read, is no JSON, or is nested or large beyond reason.
    """
    return parse_json(_bytes_of(path), str(path))


def parse_json(content: bytes, name: str) -> Any:  # noqa: ANN401
    """Return what JSON in UTF-8 says.

    Args:
        content: The text.
        name: What it is called in the sentence.

    Raises:
        UserError: It is no JSON, or nested beyond reason.
    """
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is damaged: it is no JSON ({_reason(error)}).") from error


def read_yaml(path: Path) -> Any:  # noqa: ANN401
    """Return what a YAML file says, which may name no classes.

    Raises:
        UserError: The file cannot be read, is no YAML, or is nested or large beyond reason.
    """
    import yaml  # a robot's computer has none, and reads none

    try:
        value = yaml.safe_load(_bytes_of(path).decode())
        _check_size(value)
    except (ValueError, RecursionError, LookupError, AttributeError, TypeError, yaml.YAMLError) as error:  # of its tags
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged: it is no YAML ({_reason(error)}).") from error
    return value


def _bytes_of(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # of a pipe or a device there may be no end
            raise UserError(f"{path} cannot be read: it is no file.")
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path} has {path.stat().st_size >> 20} MiB, more than such a file holds.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def _check_size(value: object) -> None:
    """Check that there are not too many values, those that a text names again counted again.

    Raises:
        ValueError: There are.
    """
    waiting, seen = [value], 0
    while waiting:
        inner = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise ValueError("too many values")
        if isinstance(inner, dict):
            waiting += inner.values()
        elif isinstance(inner, list | tuple | set):
            waiting += inner


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return printable(" ".join(str(error).split()))[:200]
