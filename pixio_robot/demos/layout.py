"""What a demonstration store holds, and where: its features, arrays and attributes."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zarr

from pixio_robot.demos.arrays import CODEC_NAME, create_array, explains_full_disk
from pixio_robot.errors import UserError

SCHEMA = "pixio_robot.demo_store"
SCHEMA_VERSION = 1

ENDS = "meta/episode_ends"
SEEDS = "meta/episode_seeds"
SUCCESS = "meta/episode_success"
TASKS = "meta/episode_tasks"
CHECKSUMS = "meta/episode_checksums"
META_DTYPES = {SEEDS: "int64", SUCCESS: "int8", TASKS: "int64", CHECKSUMS: "uint64", ENDS: "int64"}
UNKNOWN = -1


@dataclass(frozen=True)
class Feature:
    """What one step holds under a key.

    Attributes:
        shape: Shape of one step, without the time axis.
        dtype: NumPy's name of the data type.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def is_image(self) -> bool:
        """Whether a step is a uint8 (H, W, C) frame."""
        return self.dtype == "uint8" and len(self.shape) == 3


def data_name(key: str) -> str:
    """Return the name of the array of a feature."""
    return f"data/{key}"


def create_layout(path: Path, features: Mapping[str, Feature], attributes: Mapping[str, Any]) -> None:
    """Make a store without episodes, at once or not at all.

    Raises:
        UserError: There is something at the path, or the disk is full.
    """
    if path.exists():
        raise UserError(f"Cannot make a demonstration store at {path}: it exists; choose another path or delete it.")
    recorded = dict(attributes) | {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "codec": CODEC_NAME,
        "tasks": [],
        "features": {key: asdict(feature) for key, feature in features.items()},
    }
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with explains_full_disk(path, "nothing was recorded yet"):
        try:
            group = zarr.open_group(str(unfinished), mode="w", zarr_format=3, attributes=recorded)
            for key, feature in features.items():
                create_array(group, data_name(key), feature.shape, feature.dtype, is_image=feature.is_image)
            for name, dtype in META_DTYPES.items():
                create_array(group, name, (), dtype)
            os.replace(unfinished, path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a store.

    Raises:
        UserError: There is no demonstration store at the path.
    """
    try:
        attributes = json.loads((path / "zarr.json").read_bytes()).get("attributes", {})
    except (OSError, ValueError):
        raise UserError(
            f"{path} is not a demonstration store: it has no readable zarr.json; give the path of a .zarr "
            "folder made by scripts/collect_demos.py or scripts/convert_demos.py."
        ) from None
    if attributes.get("schema") != SCHEMA or attributes.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path} is a zarr group but not a demonstration store of version {SCHEMA_VERSION}: give the "
            "path of one made by scripts/collect_demos.py or scripts/convert_demos.py."
        )
    return attributes
