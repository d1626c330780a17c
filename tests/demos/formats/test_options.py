"""An option given to a converter, to an image source or to a training reaches what is behind it, or is refused by name."""

import ast
import dataclasses
import inspect
import io
import itertools
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet
import pytest
import zarr
from numbered_episodes import FEATURES, TASKS, append_numbered, random_episode
from rich.console import Console

import pixio_robot
from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature
from pixio_robot.demos.formats.conversion import convert
from pixio_robot.demos.store.layout import INTERVENTION
from pixio_robot.pretraining.images import (
    DemoImages,
    FolderImages,
    LeRobotImages,
    LiveImages,
    MixtureImages,
    ShardImages,
    images_from,
)
from pixio_robot.training.config import DemosConfig, EvaluationConfig, TrainerConfig

QUIET = Console(file=io.StringIO())
FORMATS = {"store": "s.zarr", "lerobot": "lerobot", "robomimic": "r.hdf5", "replay_buffer": "b.zarr"}
OPTIONS: dict[str, Any] = {"fps": 7, "use_videos": False, "image_size": 12, "codec": "jpeg", "format": "store"}
ARRIVES = {
    # from, to: options
    ("store", "store"): {"image_size", "codec", "format"},
    ("store", "lerobot"): {"use_videos", "format"},
    ("store", "robomimic"): {"format"},
    ("store", "replay_buffer"): {"format"},
    ("lerobot", "store"): {"image_size", "codec", "format"},
    ("robomimic", "store"): {"fps", "image_size", "codec", "format"},
    ("replay_buffer", "store"): {"fps", "image_size", "codec", "format"},
}
WALK = list(itertools.product(ARRIVES, OPTIONS))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An episode in each format; those that may leave their rate open do."""
    folder = tmp_path_factory.mktemp("sources")
    store = DemoStore.create(folder / "s.zarr", FEATURES, {"fps": 20})
    append_numbered(store, 1)
    store.close()
    for name in ("lerobot", "robomimic", "replay_buffer"):
        options = {"use_videos": False} if name == "lerobot" else {}
        convert(store.path, folder / FORMATS[name], format=name, console=QUIET, **options)  # pyright: ignore[reportArgumentType]
    with h5py.File(folder / "r.hdf5", "a") as file:
        del file["data"].attrs["pixio_robot"]
        file["data"].attrs["env_args"] = "{}"
    group = zarr.open_group(str(folder / "b.zarr"), mode="a", zarr_format=2)
    del group.attrs["pixio_robot"]
    del group["data/timestamp"]
    return folder


@pytest.mark.parametrize(("path", "option"), WALK, ids=[f"{a}-{b}-{option}" for (a, b), option in WALK])
def test_an_option_arrives_or_is_refused(sources, tmp_path, path, option):
    source, made = path
    value = made if option == "format" else OPTIONS[option]
    options = {"format": made} if source == "store" else {}
    options |= {"use_videos": False} if made == "lerobot" else {}
    options |= {"fps": 10} if "fps" in ARRIVES[path] else {}
    options |= {option: value}
    target = tmp_path / FORMATS[made]
    if option not in ARRIVES[path]:
        with pytest.raises(UserError, match=f"{option}={value} has no effect where"):
            convert(sources / FORMATS[source], target, console=QUIET, **options)
        assert not target.exists()
        return
    convert(sources / FORMATS[source], target, console=QUIET, **options)
    if option == "use_videos":
        features = json.loads((target / "meta/info.json").read_text())["features"]
        assert features["observation.images.front"]["dtype"] == "image"
    elif option == "format":
        marks = {"store": "zarr.json", "lerobot": "meta/info.json", "replay_buffer": ".zgroup"}
        assert target.is_file() if made == "robomimic" else (target / marks[made]).exists()
    else:
        store = DemoStore.open(target)
        found = {"fps": store.fps, "image_size": store.features["observation.images.front"].shape[0]}
        found["codec"] = store.attributes["codec"].partition(" ")[0]
        assert found[option] == value


def test_frames_too_small_for_video_are_refused(sources, tmp_path):
    with pytest.raises(UserError, match=r"front of .* has frames of 16 x 20 px, .*: add use_videos=false"):
        convert(sources / "s.zarr", tmp_path / "made", console=QUIET)


@pytest.mark.parametrize("source", ["lerobot", "robomimic", "replay_buffer"])
def test_another_format_is_reached_through_a_store(sources, tmp_path, source):
    with pytest.raises(UserError, match="format=lerobot has no effect where"):
        convert(sources / FORMATS[source], tmp_path / "made.zarr", format="lerobot", console=QUIET)


KINDS = (FolderImages, DemoImages, ShardImages, LeRobotImages, LiveImages, MixtureImages)
VALUES: dict[str, Any] = {
    "path": "somewhere",
    "side": 17,
    "image_keys": ("observation.images.a",),
    "shards_in_memory": 3,
    "curation": {"min_side": 9},
    "unreadable": 0.25,
    "decode_once": True,
    "every": 4,
    "cameras": ("observation.images.a",),
    "pieces_in_memory": 5,
    "generator": "mine",
    "seed": 6,
    "families": ("a",),
    "workers": 2,
    "units_in_memory": 7,
    "sources": ({"kind": "folder", "path": "a", "weight": 1},),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", VALUES)
def test_an_option_of_images_is_taken_or_refused(kind, option):
    needed = {name: VALUES[name] for name in ("path", "sources") if name in kind.__dataclass_fields__}
    given = {"kind": kind.__dataclass_fields__["kind"].default, **needed, option: VALUES[option]}
    if option in kind.__dataclass_fields__:
        found = getattr(images_from(given), option)
        assert found == VALUES[option] or found.min_side == VALUES[option]["min_side"]
    else:
        with pytest.raises(UserError, match=option):
            images_from(given)


def test_every_option_of_images_is_walked():
    assert {field.name for kind in KINDS for field in dataclasses.fields(kind)} == {"kind", *VALUES}


DEMOS: dict[str, Any] = {"episodes": 3, "first_seed": 4, "workers": 1, "root": "a", "repo_id": "me/a"}


@pytest.mark.parametrize("source", ["scripted", "store", "lerobot"])
@pytest.mark.parametrize("option", DEMOS)
def test_an_option_of_demonstrations_is_taken_or_refused(source, option):
    needed = {"store": {"path": "a.zarr"}, "lerobot": {"root": "a"}}.get(source, {})
    of_source = {"scripted": ("episodes", "first_seed", "workers"), "lerobot": ("root", "repo_id")}.get(source, ())
    if option in of_source:
        assert getattr(DemosConfig(source, **(needed | {option: DEMOS[option]})), option) == DEMOS[option]
    else:
        with pytest.raises(UserError, match=rf"demos\.{option}={DEMOS[option]} has no effect where"):
            DemosConfig(source, **(needed | {option: DEMOS[option]}))


SAMPLING: dict[str, Any] = {
    "sample_by": "task",
    "task_weights": {"lift": 3.0},
    "episode_weights": {2: 0.0},
    "pad_short_episodes": True,
}


@pytest.mark.parametrize("source", ["scripted", "store", "lerobot"])
@pytest.mark.parametrize("option", SAMPLING)
def test_an_option_of_sampling_arrives_from_every_source(source, option):
    place = {"store": {"path": "a.zarr"}, "lerobot": {"root": "a"}}.get(source, {})
    sampling = DemosConfig(source, **place, **{option: SAMPLING[option]}).sampling
    assert getattr(sampling, option.removeprefix("sample_")) == SAMPLING[option]


def test_every_option_of_demonstrations_and_conversions_is_walked():
    assert {field.name for field in dataclasses.fields(DemosConfig)} == {"source", "path", *DEMOS, *SAMPLING}
    assert inspect.signature(convert).parameters.keys() == {"source", "destination", "console", *OPTIONS}


@pytest.mark.parametrize("kind", [TrainerConfig, EvaluationConfig, DemosConfig])
def test_no_setting_of_a_training_ends_at_the_front_door(kind):
    """Each is read by something behind the class that declares it."""
    read = {
        node.attr
        for file in Path(pixio_robot.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    assert {field.name for field in dataclasses.fields(kind)} <= read


@pytest.mark.parametrize("corrected", [False, True])
def test_round_trips_through_every_format_value_by_value(tmp_path, corrected):
    names = {"observation.state": ["a.pos", "b.pos", "c.pos", "d.pos", "e.pos"], "action": ["x", "y", "z"]}
    features = FEATURES | ({INTERVENTION: Feature((1,), "float32")} if corrected else {})
    store = DemoStore.create(tmp_path / "0.zarr", features, {"fps": 20, "names": names, "env": {"type": "toy"}})
    for number in range(5):
        episode = random_episode(number, FEATURES)
        if corrected:
            episode[INTERVENTION] = (
                np.random.default_rng(number).integers(0, 2, (len(episode["action"]), 1)).astype("f4")
            )
        store.append_episode(
            episode, seed=number or None, success=[True, False, None][number % 3], task=TASKS[number % 2]
        )
    store.close()
    here = store
    for turn, made in enumerate(["lerobot", "robomimic", "replay_buffer", "store", "lerobot"], 1):
        target = tmp_path / str(turn) / FORMATS[made]
        target.parent.mkdir()
        convert(here.path, target, format=made, console=QUIET, use_videos=False if made == "lerobot" else None)
        times = written_times(target, made)
        assert times is None or times == pytest.approx(
            [step / 20 for index in range(5) for step in range(len(store.episode_range(index)))]
        )
        if made != "store":
            convert(target, tmp_path / f"{turn}.zarr", console=QUIET)
        here = DemoStore.open(target if made == "store" else tmp_path / f"{turn}.zarr")
        assert here.names == names and here.fps == 20 and here.attributes["env"] == {"type": "toy"}
        assert here.episode_tasks == store.episode_tasks
        assert here.features == features
        assert "given_up" not in here.attributes
        for found, expected in (
            (here.episode_ends, store.episode_ends),
            (here.episode_success, store.episode_success),
            (here.episode_seeds, store.episode_seeds),
            *((here.read(key, 0, store.num_steps), store.read(key, 0, store.num_steps)) for key in features),
        ):
            np.testing.assert_array_equal(found, expected)


def written_times(target: Path, made: str) -> list[float] | None:
    """Seconds since the episode's beginning of every step, where a format has a place for them."""
    if made == "lerobot":
        (file,) = (target / "data").rglob("*.parquet")
        return pyarrow.parquet.read_table(file, columns=["timestamp"])["timestamp"].to_pylist()
    group = zarr.open_group(str(target), mode="r") if made == "replay_buffer" else {}
    return np.asarray(group["data/timestamp"]).ravel().tolist() if made == "replay_buffer" else None
