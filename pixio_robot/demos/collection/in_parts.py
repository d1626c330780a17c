"""Demonstrations collected in parts: each tries a slice of the seeds; joined, they are what one collection would have stored."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from lerobot.envs import EnvConfig
from rich.console import Console

from pixio_robot.common.progress import progress_bar
from pixio_robot.common.storage.kept import only_one
from pixio_robot.demos.collection.collection import (
    CORRECTED,
    SCRIPTED,
    MakeExperts,
    append_demonstration,
    demonstrations_of,
    new_store,
    open_matching,
    store_attributes,
)
from pixio_robot.demos.store.codecs import LOSSLESS
from pixio_robot.demos.store.store import DemoStore

_STORE = "demos.zarr"


def collect_part(
    env_config: EnvConfig,
    folder: Path,
    seeds: Sequence[int],
    first_seed: int,
    *,
    workers: int | None = None,
    console: Console | None = None,
    corrected: MakeExperts | None = None,
) -> None:
    """Try seeds that follow each other, all of them, and store those that succeed, without loss, in a folder.

    Args:
        env_config: See `collection.collect`.
        folder: Of the part; a part that was interrupted there goes on.
        seeds: Of this part.
        first_seed: Of the whole collection.
        workers: See `collection.collect`.
        console: See `collection.collect`.
        corrected: See `collection.collect`.

    Raises:
        UserError: See `collection.collect`.
    """
    attributes = store_attributes(env_config, first_seed, SCRIPTED if corrected is None else CORRECTED)
    path = folder / _STORE
    store = open_matching(path, attributes)
    if store is not None and store.num_episodes:
        seeds = [seed for seed in seeds if seed > store.episode_seeds[-1]]
    if not seeds:
        return
    console = console or Console(stderr=True)
    try:
        with (
            progress_bar("seeds", len(seeds), console) as advance,
            closing(
                demonstrations_of(env_config, len(seeds), seeds[0], workers, corrected, seeds[-1] + 1)
            ) as demonstrations,
        ):
            for demonstration in demonstrations:
                if demonstration.success:
                    store = store or new_store(path, demonstration, attributes, LOSSLESS)
                    append_demonstration(store, demonstration)
                advance()
    finally:
        if store is not None:
            store.close()
    console.print(f"{store.num_episodes if store is not None else 0} demonstrations in {folder}", highlight=False)


def join_parts(folders: Sequence[Path], path: Path, n_episodes: int, attributes: dict[str, Any], codec: str) -> None:
    """Make a store of the demonstrations of several parts, or go on with it where that was interrupted.

    Args:
        folders: Of all parts, in the order of their seeds.
        path: Of the store.
        n_episodes: Number of episodes that the store shall have; further ones stay out.
        attributes: What `collection.store_attributes` says of it.
        codec: How it keeps frames.

    Raises:
        UserError: There is a store of something else, a part is damaged, or the disk is full.
    """
    with only_one(path):
        whole = open_matching(path, attributes)
        there = int(whole.episode_seeds[-1]) if whole is not None and whole.num_episodes else -1
        n_missing = n_episodes - (whole.num_episodes if whole is not None else 0)
        try:
            for part in filter(None, (open_matching(folder / _STORE, attributes) for folder in folders)):
                for index, (seed, task) in enumerate(zip(part.episode_seeds.tolist(), part.episode_tasks, strict=True)):
                    if seed > there and n_missing > 0:
                        n_missing -= 1
                        whole = whole or DemoStore.create(path, part.features, part.attributes, codec)
                        whole.append_episode(part.episode(index), seed=seed, success=True, task=task)
        finally:
            if whole is not None:
                whole.close()
