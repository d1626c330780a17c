"""Whatever a dataset of others holds: what is accepted comes out value by value, all else is one sentence.

2,000 datasets are drawn, most of them harmed in a place or two. Harms keep to what checks can find: a file is cut off or
missing, never changed in its middle, where formats without checksums do not notice.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hypothesis
import numpy as np
import pytest
import zarr
from hypothesis import strategies as st
from PIL import Image
from plain_lerobot import FRONT, STATE, PlainDataset, encoded
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.conversion import convert
from pixio_robot.pretraining.sources import ImageCache, open_source

TRIES = 500  # of each of four kinds
FUZZED = hypothesis.settings(
    max_examples=TRIES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
    print_blob=True,
)
ODD: list[Any] = [None, -1, 0, 3, 1e300, "x", "", [], {}, [1, 2], True, "nan", {"a": 1}]
DTYPES = ["float32", "float64", "float16", "int64", "int32", "uint8", "bool"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def converted(source: Path, fps: int | None = None) -> DemoStore | None:
    """Return the store that a source becomes; None where it is refused, in one sentence, with nothing left."""
    target = source.with_name("made.zarr")
    before = sorted(source.parent.iterdir())
    try:
        convert(source, target, fps=fps, console=Console(file=io.StringIO()))
    except UserError as error:
        said = str(error)
    else:
        return DemoStore.open(target)
    assert "\n" not in said and len(said) > 30
    assert sorted(source.parent.iterdir()) == before
    return None


def drawn_values(data: st.DataObject, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    dtype = data.draw(st.sampled_from(DTYPES))
    values = rng.normal(size=shape) * 3
    return (
        (values > 0) if dtype == "bool" else np.abs(values).astype(dtype) if dtype == "uint8" else values.astype(dtype)
    )


def cut_or_remove(data: st.DataObject, root: Path, spared: Callable[[Path], bool] = lambda file: False) -> None:
    files = sorted(file for file in root.rglob("*") if file.is_file() and not spared(file)) if root.is_dir() else [root]
    file = data.draw(st.sampled_from(files))
    if root.is_dir() and data.draw(st.booleans()):
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: data.draw(st.integers(0, max(0, file.stat().st_size - 1)))])


def harm_columns(data: st.DataObject, dataset: PlainDataset) -> None:
    key = data.draw(st.sampled_from(sorted(dataset.columns)))
    column = dataset.columns[key]
    row = data.draw(st.integers(0, len(column) - 1))
    kind = data.draw(st.sampled_from(["null", "missing", "text", "number", "drop", "twice", "ragged", "not finite"]))
    if kind == "null":
        column[row] = None
    elif kind == "missing":
        del dataset.columns[key]
    elif kind == "text":
        dataset.columns[key] = [str(value) for value in column]
    elif kind == "number" and key in ("episode_index", "frame_index", "task_index", "timestamp"):
        column[row] = type(column[row])(data.draw(st.sampled_from([-1, 1, 2, 7])) + column[row])
        hypothesis.assume(key != "task_index" or column[row] not in (0, 1))  # another task is no harm
    elif kind in ("drop", "twice"):
        rows = list(range(len(column)))
        rows[row : row + 1] = [] if kind == "drop" else [row, row]
        hypothesis.assume(rows)
        dataset.reorder(rows)
    elif kind == "ragged" and isinstance(column[row], list):
        column[row] = column[row][:-1]
    elif kind == "not finite" and isinstance(column[row], list) and isinstance(column[row][0], float):
        column[row] = [float(data.draw(st.sampled_from(["nan", "inf"])))] + column[row][1:]


def harm_metadata(data: st.DataObject, dataset: PlainDataset) -> None:
    kind = data.draw(st.sampled_from(["info", "feature", "entry", "episodes", "tasks"]))
    odd = data.draw(st.sampled_from(ODD))
    if kind == "info":
        key = data.draw(st.sampled_from(sorted(dataset.info)))
        dataset.info[key] = odd
    elif kind == "feature":
        dataset.features[data.draw(st.sampled_from(sorted(dataset.features)))] = odd
    elif kind == "entry":
        key = data.draw(st.sampled_from(sorted(dataset.features)))
        dataset.features[key][data.draw(st.sampled_from(["dtype", "shape", "names", "info"]))] = odd
    elif kind == "episodes":
        name = data.draw(st.sampled_from(["episode_index", "length", "data/file_index"]))
        episode = data.draw(st.sampled_from(dataset.episodes))
        episode[name] = data.draw(st.sampled_from([None, -1, 7]))
    else:
        dataset.tasks = {"task_index": data.draw(st.sampled_from([[0, 1], [5, 6]])), "words": [["a"], ["b"]]}


def flat(values: list[Any] | np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(len(values), -1)


@FUZZED
@hypothesis.given(st.data())
def test_lerobot(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    dataset, count = PlainDataset(lengths), sum(lengths)
    for key in (STATE, "action", "observation.more", "other"):
        shape = data.draw(st.sampled_from([(1,), (3,), (2, 2)]))
        values = drawn_values(data, rng, (count, *shape))
        dataset.features[key] = {"dtype": values.dtype.name, "shape": list(shape), "names": None}
        dataset.columns[key] = values.tolist()
    size = (data.draw(st.integers(8, 10)), data.draw(st.integers(8, 10)))
    channels = data.draw(st.sampled_from([1, 3, 4]))
    pixels = rng.integers(0, 256, (count, *size, channels), np.uint8)
    dataset.columns[FRONT] = [{"bytes": encoded(image.squeeze()), "path": None} for image in pixels]
    dataset.features[FRONT] = {"dtype": "image", "shape": [*size, channels], "names": None}
    truth = {key: flat(dataset.columns[key]) for key in (STATE, "action", "observation.more")}
    frames = np.repeat(pixels, 3, axis=-1) if channels == 1 else pixels[..., :3]
    # A task that changes cuts an episode: here it does not.
    dataset.reorder(data.draw(st.permutations(range(count))))
    harms = data.draw(st.lists(st.sampled_from([harm_columns, harm_metadata, cut_or_remove]), max_size=2))
    for harm in harms:
        if harm is not cut_or_remove:
            harm(data, dataset)
    with folder() as root:
        try:
            dataset.write(root / "dataset")
        except Exception:  # parquet has no place for this
            hypothesis.reject()
        if cut_or_remove in harms:
            cut_or_remove(data, root / "dataset")
        store = converted(root / "dataset")
        assert store is not None or harms
        if store is None:
            return
        assert store.num_steps == count
        for key, feature in store.features.items():
            found = store.read(key, 0, count)
            np.testing.assert_array_equal(
                found if feature.is_image else flat(found), frames if key == FRONT else truth[key]
            )


@FUZZED
@hypothesis.given(st.data())
@pytest.mark.parametrize("kind", ["robomimic", "buffer"])
def test_named_arrays(kind: str, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    rng, count = np.random.default_rng(data.draw(st.integers(0, 999))), sum(lengths)
    action = "actions" if kind == "robomimic" else "action"
    arrays = {action: drawn_values(data, rng, (count, 2)), "state": drawn_values(data, rng, (count, 3))}
    for name in data.draw(st.sets(st.sampled_from(["keypoint", "n_contacts", "cam_depth", "history"]))):
        arrays[name] = drawn_values(
            data, rng, (count, *data.draw(st.sampled_from([(), (2, 3), (9, 4, 4), (1, 8, 8, 3)])))
        )
    pixels = rng.integers(0, 256, (count, 8, 11, data.draw(st.sampled_from([1, 3, 4]))), np.uint8)
    frames = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]
    form = data.draw(st.sampled_from(["bytes", "first", "unit", "deep", "whole"]))
    arrays["cam"] = {
        "bytes": pixels,
        "first": np.moveaxis(pixels, -1, 1),
        "unit": pixels.astype(np.float32) / 255,
        "deep": pixels.astype(np.uint16) * 257,
        "whole": pixels.astype(np.float64),
    }[form]
    ends, harms = np.cumsum(lengths), data.draw(st.integers(0, 2))
    for _ in range(harms):
        harm_arrays(data, arrays)
    truth = {"observation.state": arrays.get("state"), "action": arrays.get(action)}
    with folder() as root:
        source = root / ("file.hdf5" if kind == "robomimic" else "buffer.zarr")
        (write_robomimic if kind == "robomimic" else write_buffer)(data, source, arrays, ends, harms)
        is_cut = data.draw(st.integers(0, 3)) == 3
        if is_cut:
            # A chunk that is not there is zeros by zarr's format, unless it is one of frames.
            cut_or_remove(
                data, source, lambda file: not file.name.startswith((".z", "zarr.json")) and "cam" not in file.parts
            )
        store = converted(source, None if kind == "robomimic" else 10)
        assert store is not None or harms or is_cut
        if store is None:
            return
        assert store.num_steps == count
        for key, values in truth.items():
            if values is None or values.dtype.kind == "S":  # others stand in for it
                continue
            np.testing.assert_array_equal(flat(store.read(key, 0, count)), flat(values[:count]))
        if "observation.images.cam" in store.features and not harms:
            np.testing.assert_array_equal(store.read("observation.images.cam", 0, count), frames)


def harm_arrays(data: st.DataObject, arrays: dict[str, np.ndarray]) -> None:
    hypothesis.assume(arrays)
    name = data.draw(st.sampled_from(sorted(arrays)))
    values = arrays[name]
    kind = data.draw(st.sampled_from(["missing", "shorter", "longer", "text", "odd pixel", "not finite", "flat"]))
    if kind == "missing":
        del arrays[name]
    elif kind == "shorter":
        arrays[name] = values[:-1]
    elif kind == "longer":
        arrays[name] = np.concatenate([values, values[:1]])
    elif kind == "text":
        arrays[name] = np.full(len(values), b"text", "S4")
    elif kind == "odd pixel" and values.dtype.kind in "fi" and values.size:
        arrays[name] = values.copy()
        arrays[name].flat[-1] = data.draw(st.sampled_from([-7, 999]))
    elif kind == "not finite" and values.dtype.kind == "f" and values.size:
        arrays[name] = values.copy()
        arrays[name].flat[-1] = data.draw(st.sampled_from([np.nan, np.inf]))
    elif kind == "flat" and values.ndim:
        arrays[name] = values.reshape(len(values), -1) if values.dtype.kind != "S" else values


def write_robomimic(
    data: st.DataObject, path: Path, arrays: dict[str, np.ndarray], ends: np.ndarray, harms: int
) -> None:
    args: Any = {"env_name": "Lift", "env_kwargs": {"control_freq": 20}}
    odd = data.draw(st.sampled_from(["args", "kwargs", "rate", "mask", "group", "demo", *[""] * 6])) if harms else ""
    value = data.draw(st.sampled_from(ODD))
    args = {"args": value, "kwargs": args | {"env_kwargs": value}, "rate": {"env_kwargs": {"control_freq": value}}}.get(
        odd, args
    )
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(args)
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            for name, values in arrays.items():
                file[f"data/demo_{number}/{name if name == 'actions' else f'obs/{name}'}"] = values[start:end]
        if odd == "mask":
            file["mask"] = 3
        if odd == "group":
            file.create_group("data/demo_0/obs/more/part")
        if odd == "demo":
            file["data/demo_x"] = 3
            file["data/demo_y/actions/none"] = 3


def write_buffer(data: st.DataObject, path: Path, arrays: dict[str, np.ndarray], ends: np.ndarray, harms: int) -> None:
    group = zarr.open_group(str(path), mode="w", zarr_format=data.draw(st.sampled_from([2, 3])))
    for name, values in arrays.items():
        group.create_array(f"data/{name}", data=values)
    if harms and data.draw(st.integers(0, 4)) == 4:
        ends = data.draw(
            st.sampled_from([ends + 1, ends[::-1] * 0, ends + 0.5, np.zeros((0,), np.int64), ends[:, None] + 1])
        )
    group.create_array("meta/episode_ends", data=ends)


def pictures(data: st.DataObject, root: Path) -> dict[str, np.ndarray]:
    rng, truth = np.random.default_rng(data.draw(st.integers(0, 999))), {}
    for number in range(data.draw(st.integers(1, 4))):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        mode = data.draw(st.sampled_from(["RGB", "L", "I;16", "RGBA", "1", "P"]))
        grey = pixels[..., 0]
        image = {
            "RGB": lambda pixels=pixels: Image.fromarray(pixels),
            "L": lambda grey=grey: Image.fromarray(grey),
            "I;16": lambda grey=grey: Image.fromarray(grey.astype(np.uint16) * 257),
            "RGBA": lambda pixels=pixels, grey=grey: Image.fromarray(np.dstack([pixels, (grey > 99) * np.uint8(255)])),
            "1": lambda grey=grey: Image.fromarray(grey > 127),
            "P": lambda grey=grey: Image.fromarray(grey).convert("P"),
        }[mode]()
        suffix = data.draw(
            st.sampled_from(["png", "PNG", "tif", "bmp"] if mode in ("RGB", "L", "1") else ["png", "tif"])
        )
        place = root / data.draw(st.sampled_from([".", "a", "a/b", "größe", "a b"]))
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number}.{suffix}")
        white = np.where(grey[..., None] > 99, pixels, 255)
        black = np.repeat(grey[..., None], 3, -1)
        expected = {"RGB": pixels, "RGBA": white, "1": (black > 127) * 255}.get(mode, black)
        truth[str((place / f"{number}.{suffix}").relative_to(root))] = expected
    return truth


@FUZZED
@hypothesis.given(st.data())
def test_image_folders(data: st.DataObject) -> None:
    with folder() as root:
        truth = pictures(data, root / "images")
        kind = data.draw(st.sampled_from(["", "cut", "loop", "broken", "text", "noise"]))
        if kind == "cut":
            cut_or_remove(data, root / "images")
        elif kind == "loop":
            (root / "images/loop").symlink_to(root / "images")
        elif kind == "broken":
            (root / "images/broken.png").symlink_to(root / "nowhere.png")
        elif kind in ("text", "noise"):
            name = data.draw(st.sampled_from(["a.txt", "none", ".hidden.png", "z.jpg"]))
            (root / "images" / name).write_bytes(b"<html>" if kind == "text" else np.random.bytes(50))
        try:
            cache = open_source({"kind": "folder", "path": str(root / "images"), "side": 16}, root / "cache")
        except UserError as error:
            said = str(error)
        else:
            said = ""
        if said:
            assert "\n" not in said and len(truth) == 1 and kind == "cut"
            return
        assert isinstance(cache, ImageCache)
        names = cache.names(range(len(cache)))
        assert len(names) >= len(truth) - (kind == "cut")
        for index, name in enumerate(names):
            if kind != "cut" or np.array_equal(cache[index].numpy(), truth[name]):
                np.testing.assert_array_equal(cache[index].numpy(), truth[name])
