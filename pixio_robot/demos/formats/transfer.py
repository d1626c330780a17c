"""What all converters share: results that are complete or not there, and what a format has no place for."""

import contextlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import progress_bar
from pixio_robot.common.storage.files import atomic_path
from pixio_robot.demos.store.layout import Feature, check_finite
from pixio_robot.demos.store.store import DemoStore

# What a store says of itself anew.
_DERIVED_ATTRIBUTES = {"schema", "schema_version", "codec", "tasks", "features", "fps"}


class Episode(NamedTuple):
    """An episode as `DemoStore.append_episode` takes it; None is unknown."""

    data: Mapping[str, np.ndarray]
    seed: int | None
    success: bool | None
    task: str


@dataclass(frozen=True)
class Record:
    """What other formats have no place for, kept as JSON beside their own data.

    Attributes:
        attributes: The store's, without those that it finds out by itself.
        seeds: Of each episode; None is unknown.
        success: Of each episode; None is unknown.
        tasks: Of each episode; None where the format says it.
        fps: Control rate in Hz; None where the format says it.
    """

    attributes: dict[str, Any]
    seeds: list[int | None]
    success: list[bool | None]
    tasks: list[str | None]
    fps: int | None

    @classmethod
    def of_store(cls, store: DemoStore) -> "Record":
        """Return what a store has."""
        return cls(
            attributes={name: value for name, value in store.attributes.items() if name not in _DERIVED_ATTRIBUTES},
            seeds=[int(seed) if seed >= 0 else None for seed in store.episode_seeds],
            success=[bool(success) if success >= 0 else None for success in store.episode_success],
            tasks=list(store.episode_tasks),
            fps=store.fps,
        )

    @classmethod
    def from_json(cls, saved: Any, n_episodes: int) -> "Record":  # noqa: ANN401 (whatever a file holds)
        """Read what was saved; nothing is known where nothing was, or where the episodes are others by now."""
        saved = saved if isinstance(saved, Mapping) else {}
        per_episode: dict[str, list[Any]] = {}
        for name, kind in (("seeds", int), ("success", bool), ("tasks", str)):
            values = saved.get(name)
            fits = isinstance(values, list) and len(values) == n_episodes
            fits = fits and all(value is None or isinstance(value, kind) for value in values or ())
            per_episode[name] = list(values or ()) if fits else [None] * n_episodes
        attributes, fps = saved.get("attributes"), saved.get("fps")
        attributes = dict(attributes) if isinstance(attributes, Mapping) else {}
        return cls(attributes, **per_episode, fps=fps if isinstance(fps, int) and fps > 0 else None)

    @classmethod
    def read(cls, file: Path, n_episodes: int) -> "Record":
        """Read a file of what was saved, if there is one.

        Raises:
            UserError: It is damaged.
        """
        if not file.exists():
            return cls.from_json({}, n_episodes)
        with explains_unreadable(file.parent.parent, f"{file.parent.name}/{file.name}"):
            return cls.from_json(json.loads(file.read_bytes()), n_episodes)


def new_result(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Return an `atomic_path` of what a converter makes; nothing may be there yet."""
    return atomic_path(path, overwrite=False, kept="nothing was written there, and the source is as it was")


@contextlib.contextmanager
def explains_unreadable(path: Path, part: str) -> Iterator[None]:
    """Turn whatever a library says of a damaged file into a `UserError`."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # each library, and each kind of damage, has errors of its own
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} is damaged or incomplete: {part} cannot be read ({reason}); get it anew from where it came from."
        ) from error


def pack(folder: Path, file: Path) -> None:
    """Write a folder as a zip file; the files in it are compressed already, and are read from anywhere in their middle."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for member in sorted(member for member in folder.rglob("*") if member.is_file()):
            archive.write(member, member.relative_to(folder).as_posix())


def check_not_empty(store: DemoStore) -> None:
    """Look that there is something to convert.

    Raises:
        UserError: The store has no finished episode.
    """
    if store.num_episodes == 0:
        raise UserError(f"{store.path} has no finished episode: there is nothing to convert.")


def write_store(
    path: Path,
    features: Mapping[str, Feature],
    attributes: Mapping[str, Any],
    episodes: Iterable[Episode],
    n_episodes: int,
    codec: str,
    console: Console | None,
    given_up: Sequence[str] = (),
) -> DemoStore:
    """Make a store of episodes, with one of them in memory at a time.

    Args:
        path: Folder to make.
        features: What a step holds.
        attributes: See `DemoStore.create`.
        episodes: To write.
        n_episodes: How many there are.
        codec: See `DemoStore.create`.
        console: Where to show progress: standard error by default.
        given_up: What of the source is left out, shrunk or assumed, in words: said in one line, and kept as the attribute
            ``given_up`` behind what earlier conversions left there.

    Raises:
        UserError: There is something at the path, an episode cannot be read or has a number that is not finite, the codec
            is unknown or not installed, or the disk is full. Then nothing is left there.
    """
    console = console or Console(stderr=True)
    earlier = attributes.get("given_up")
    if given_up:
        attributes = {**attributes, "given_up": [*(earlier if isinstance(earlier, list) else ()), *given_up]}
        say_given_up(given_up, console)
    with new_result(path) as unfinished:
        store = DemoStore.create(unfinished, features, attributes, codec)
        with (
            contextlib.closing(store),
            progress_bar("episodes", n_episodes, console) as advance,
        ):
            for number, episode in enumerate(episodes):
                check_finite(str(attributes.get("source") or "the source"), store.names, number, episode.data)
                store.append_episode(episode.data, seed=episode.seed, success=episode.success, task=episode.task)
                advance()
    return DemoStore.open(path)


def say_given_up(given_up: Sequence[str], console: Console) -> None:
    """Say in one line what does not come along."""
    console.print(f"left out or changed: {'; '.join(given_up)}", highlight=False, markup=False, soft_wrap=True)
