"""Several demonstration stores as one, by a copy."""

import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.utils.constants import ACTION
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.kept import only_one
from pixio_robot.demos.formats.store import episodes_of
from pixio_robot.demos.formats.transfer import Episode, Record, check_not_empty, write_store
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.layout import INTERVENTION, Feature
from pixio_robot.demos.store.store import DemoStore


def joined_store(stores: Sequence[DemoStore], folder: Path, console: Console) -> DemoStore:
    """Return a store of all episodes of several, one after the other, made now or earlier in a folder.

    Where one says who acted and another does not, the other's steps are a demonstrator's.

    Args:
        stores: At least one, none of them empty.
        folder: Where the joined store lies, named after what it holds.
        console: Where progress and what is lost are said.

    Raises:
        UserError: They differ in rate, features, names or robot; or see `export_store`.
    """
    held = " ".join(store.fingerprint() for store in stores)
    path = folder / f"joined_{hashlib.sha256(held.encode()).hexdigest()[:8]}.zarr"
    if not path.exists():
        with only_one(path):
            if not path.exists():
                return _join(stores, path, console)
    console.print(f"reusing {path}", highlight=False, soft_wrap=True)
    return DemoStore.open(path)


def _join(stores: Sequence[DemoStore], path: Path, console: Console) -> DemoStore:
    first = stores[0]
    for store in stores:
        check_not_empty(store)
        for what, there in _interface(first).items():
            here = _interface(store)[what]
            compared = [key for key in {**there, **here} if what != "robots" or (key in there and key in here)]
            if differ := ", ".join(key for key in compared if there.get(key) != here.get(key)):
                raise UserError(f"{store.path} cannot be joined to {first.path}: their {what} differ ({differ}).")
    attributes = [Record.of_store(store).attributes for store in stores]
    kept = functools.reduce(_agreed, attributes)
    said = [f"{name} of the stores, which differ" for name in sorted(set().union(*attributes) - set(kept))]
    features = dict(first.features)
    if any(INTERVENTION in store.features for store in stores):
        features[INTERVENTION] = Feature((1,), "float32")
    total = sum(store.num_episodes for store in stores)
    kept = {**kept, "fps": first.fps, "joined": [str(store.path) for store in stores]}
    return write_store(path, features, kept, _episodes(stores, features), total, LOSSLESS, console, said)


def _interface(store: DemoStore) -> dict[str, dict[str, Any]]:
    """Return what stores of one robot have in common; a recording may not know its robot."""
    env = store.attributes.get("env") or {}
    features = {key: (*feature.shape, feature.dtype) for key, feature in store.features.items() if key != INTERVENTION}
    robot = {name: env[name] for name in ("type", "robot", "control_mode") if env.get(name) is not None}
    return {"rates": {"fps": store.fps}, "features": features, "names": store.names, "robots": robot}


def _agreed(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two mappings say alike, also within the mappings in them."""
    both = {name: (one[name], other[name]) for name in one if name in other}
    return {
        name: _agreed(ours, theirs) if isinstance(ours, Mapping) and isinstance(theirs, Mapping) else ours
        for name, (ours, theirs) in both.items()
        if ours == theirs or (isinstance(ours, Mapping) and isinstance(theirs, Mapping))
    }


def _episodes(stores: Sequence[DemoStore], features: Mapping[str, Feature]) -> Iterator[Episode]:
    for episode in itertools.chain.from_iterable(map(episodes_of, stores)):
        acted = np.ones((len(episode.data[ACTION]), 1), np.float32)
        yield episode._replace(data={key: episode.data.get(key, acted) for key in features})
