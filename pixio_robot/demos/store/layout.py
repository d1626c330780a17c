"""What a demonstration store holds, and where: its features, arrays and attributes."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
import zarr
from annotated_types import Ge, Gt, Le, MaxLen
from pydantic import StringConstraints, TypeAdapter, ValidationError

from pixio_robot.common.errors import UserError, printable
from pixio_robot.common.storage.files import atomic_path, check_links
from pixio_robot.demos.store.arrays import create_array, create_frame_array, open_array, read_growing
from pixio_robot.demos.store.codecs import CODECS
from pixio_robot.demos.store.locations import Location, check_there, open_zarr, read_member

SCHEMA = "pixio_robot.demo_store"
SCHEMA_VERSION = 1

ENDS = "meta/episode_ends"
SEEDS = "meta/episode_seeds"
SUCCESS = "meta/episode_success"
TASKS = "meta/episode_tasks"
CHECKSUMS = "meta/episode_checksums"
META_DTYPES = {SEEDS: "int64", SUCCESS: "int8", TASKS: "int64", CHECKSUMS: "uint64", ENDS: "int64"}
UNKNOWN = -1
INTERVENTION = "intervention"
"""Key of a step that is 1 where its action is a demonstrator's, and 0 where it is a policy's or a mistake on purpose."""
_KEY = r"^\w[\w.-]*$"
_MOST_BYTES = 1 << 26
"""Of attributes."""


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


def names_in(attributes: Mapping[str, Any], features: Mapping[str, Feature]) -> dict[str, list[str]]:
    """Return what each number of a key is, by the attribute ``names`` of a store, where it fits the key."""
    names = attributes.get("names") or {}
    return {
        key: [str(name) for name in names[key]]
        for key, feature in features.items()
        if len(names.get(key) or ()) == math.prod(feature.shape) and not feature.is_image
    }


def data_name(key: str) -> str:
    """Return the name of the array of a feature."""
    return f"data/{key}"


def create_layout(path: Path, features: Mapping[str, Feature], attributes: Mapping[str, Any], codec: str) -> None:
    """Make a store without episodes, at once or not at all.

    Raises:
        UserError: There is something at the path, a feature's name is no name of a folder, the codec is unknown or not
            installed, or the disk is full.
    """
    for key in features:
        if not re.fullmatch(_KEY, key) or ".." in key:
            raise UserError(
                f"A store cannot have a feature {printable(repr(key))}: give it a name of letters, digits, _, - and single dots."
            )
    recorded = dict(attributes) | {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "codec": CODECS.get(codec),
        "tasks": [],
        "features": {key: asdict(feature) for key, feature in features.items()},
    }
    with atomic_path(path, overwrite=False, kept="nothing was recorded yet") as unfinished:
        group = zarr.open_group(str(unfinished), mode="w", zarr_format=3, attributes=recorded)
        for key, feature in features.items():
            if feature.is_image:
                create_frame_array(group, data_name(key), feature.shape, codec)
            else:
                create_array(group, data_name(key), feature.shape, feature.dtype)
        for name, dtype in META_DTYPES.items():
            create_array(group, name, (), dtype)


def read_attributes(location: Location) -> dict[str, Any]:
    """Return the attributes of a store.

    Raises:
        UserError: There is no demonstration store at the location.
    """
    check_there(location)
    if isinstance(location, Path) and location.is_dir():
        check_links(location)
    try:
        content = read_member(location, "zarr.json")
        described = json.loads(content.decode()) if len(content) < _MOST_BYTES else None
        attributes = described.get("attributes", {}) if isinstance(described, dict) else None
        if not isinstance(attributes, dict):
            raise ValueError("no attributes")
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{location} is not a demonstration store: it has no readable zarr.json; give the path of a .zarr "
            "folder made by scripts/collect_demos.py or scripts/convert_demos.py."
        ) from None
    if attributes.get("schema") != SCHEMA or attributes.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{location} is a zarr group but not a demonstration store of version {SCHEMA_VERSION}: give the "
            "path of one made by scripts/collect_demos.py or scripts/convert_demos.py."
        )
    try:
        TypeAdapter(_Known).validate_python(attributes, strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        where = printable(" ".join(map(str, (*wrong["loc"], wrong["msg"]))))[:200]
        raise UserError(
            f"The demonstration store {location} is damaged: its zarr.json is not what one has ({where}); restore it from a copy."
        ) from error
    return attributes


class _KnownFeature(TypedDict):
    shape: Annotated[list[Annotated[int, Ge(1), Le(1 << 16)]], MaxLen(4)]
    dtype: Literal["uint8", "float32"]


class _Known(TypedDict):
    """What everything relies on in the attributes of a store, which anybody may have written."""

    fps: Annotated[float, Gt(0), Le(1e6)]
    tasks: list[str]
    features: dict[Annotated[str, StringConstraints(pattern=_KEY)], _KnownFeature]
    codec: NotRequired[str]


def read_meta(path: Location) -> dict[str, np.ndarray]:
    """Read what is known of each finished episode."""
    source = open_zarr(path)
    meta = {name: read_growing(path, name, open_array(source, path, name, "r")) for name in META_DTYPES}
    ends = meta[ENDS]
    # Of an episode cut off while its end was written, the row reads as 0.
    n_episodes = len(ends) - 1 if len(ends) and ends[-1] == 0 else len(ends)
    return {name: values[:n_episodes] for name, values in meta.items()}


def check_episode(path: Location, features: Mapping[str, Feature], episode: Mapping[str, np.ndarray]) -> int:
    """Return the number of steps of an episode that is to be appended.

    Raises:
        UserError: It does not fit the features.
    """
    if set(episode) != set(features):
        raise UserError(
            f"The episode has {sorted(episode)} but {path} holds {sorted(features)}: "
            "record the same keys or make a new store."
        )
    lengths = {len(values) for values in episode.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise UserError(f"The keys of an episode have {sorted(lengths)} steps: give each the same, at least 1.")
    for key, feature in features.items():
        found = Feature(episode[key].shape[1:], episode[key].dtype.name)
        if found != feature:
            raise UserError(
                f"{key} of the episode is {found.dtype} {found.shape} but {path} holds "
                f"{feature.dtype} {feature.shape}: record the same or make a new store."
            )
    return lengths.pop()


def check_finite(source: str, names: Mapping[str, list[str]], number: int, episode: Mapping[str, np.ndarray]) -> None:
    """Look that an episode holds finite numbers.

    Raises:
        UserError: One is not; the message says which.
    """
    for key, values in episode.items():
        if values.dtype.kind != "f" or np.isfinite(values).all():
            continue
        step, *place = np.argwhere(~np.isfinite(values))[0].tolist()
        dimension = int(np.ravel_multi_index(place, values.shape[1:])) if place else 0
        name = f" ({names[key][dimension]})" if key in names else ""
        raise UserError(
            f"{source}: {key} of episode {number}, step {step}, dimension {dimension}{name} is "
            f"{values[step].ravel()[dimension]}, which is no number to train on (or too large for float32): correct it, or leave "
            "the episode out."
        )


def checksum(episode: Mapping[str, np.ndarray]) -> int:
    """Return a number that differs where the data of an episode differ."""
    digest = hashlib.blake2b(digest_size=8)
    for key in sorted(episode):
        digest.update(np.ascontiguousarray(episode[key]))
    return int.from_bytes(digest.digest(), "little")
