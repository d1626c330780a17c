"""Tokens of a frozen encoder, computed once for every frame of a demonstration store and for augmented copies of it.

Shape letters: T steps of the store, B batch, N encoder tokens (global first, then patches), D width.
"""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
import psutil
import torch
import zarr
from torch import Tensor
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from pixio_robot.common.errors import UserError
from pixio_robot.common.precision import multiplies_bfloat16
from pixio_robot.common.storage.files import atomic_path, explains_full_disk
from pixio_robot.common.storage.kept import only_one
from pixio_robot.demos import DemoStore
from pixio_robot.encoders import VisionEncoder, weights_hash
from pixio_robot.encoders.torchscript import TORCHSCRIPT
from pixio_robot.images.preprocessing import frames_to_images
from pixio_robot.training.data.augmentation import AUGMENTATION, augment

log = logging.getLogger(__name__)

_FRAMES_PER_CHUNK = 32
_FORMAT = 2
_IN_MEMORY_SHARE = 0.3
"""Of the memory that is free: tokens of a store that take no more are kept in it, and else read from disk at half the speed."""


class FeatureCache:
    """Encoder tokens (T, N, D) in float16 for each camera and copy, read by step index; copy 0 is the frame itself."""

    def __init__(self, groups: Sequence[zarr.Group], image_keys: Sequence[str], num_steps: int) -> None:
        """Open a cache, a group for each copy, whose first steps are complete; use `cache_features` to make one."""
        self._arrays: dict[str, list[Any]] = {key: [group[key] for group in groups] for key in image_keys}
        self.num_copies = len(groups)
        every = [array for arrays in self._arrays.values() for array in arrays]
        self.num_bytes = sum(array.nbytes // array.shape[0] * num_steps for array in every)
        if self.num_bytes <= _IN_MEMORY_SHARE * psutil.virtual_memory().available:
            self._arrays = {
                key: [np.asarray(array[:num_steps]) for array in arrays] for key, arrays in self._arrays.items()
            }

    def read(self, image_key: str, steps: np.ndarray, copies: np.ndarray | None = None) -> Tensor:
        """Return the tokens of a camera at global step indices, float32 (B, N, D).

        Args:
            image_key: The camera.
            steps: Step indices (B,).
            copies: Which copy of each, (B,) in [0, num_copies); None reads the frames themselves.
        """
        arrays = self._arrays[image_key]
        if copies is None:
            tokens = _rows(arrays[0], steps)
        else:
            tokens = np.empty((len(steps), *arrays[0].shape[1:]), np.float16)
            for copy in np.unique(copies):
                tokens[copies == copy] = _rows(arrays[copy], steps[copies == copy])
        # numpy widens float16 bit by bit, torch by the processor's own instruction, to the same numbers.
        return torch.from_numpy(tokens).float()


def _rows(array: zarr.Array | np.ndarray, steps: np.ndarray) -> np.ndarray:
    return np.asarray(array[steps] if isinstance(array, np.ndarray) else array.oindex[steps])


def cache_features(
    store: DemoStore,
    encoder: VisionEncoder,
    image_keys: Sequence[str],
    cache_root: Path,
    *,
    num_steps: int | None = None,
    augmented_copies: int = 0,
    patches: bool = True,
    precision: Literal["auto", "float32", "bfloat16"] = "float32",
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureCache:
    """Encode every frame of a store, or of its first steps, once, or pick up what an earlier run has encoded.

    The cache's folder name follows from the encoder's weights and preprocessing and the store's content, so
    that a changed encoder or dataset never meets old tokens. An interrupted run, or one that needs more steps than the
    last, continues where that stopped. Every chunk has a checksum: damaged ones are encoded again, aloud.
    Augmented copies have folders of their own: a run that wants more of them adds to what is there.

    Args:
        store: Demonstrations.
        encoder: A frozen encoder.
        image_keys: The cameras to encode.
        cache_root: Folder that holds all caches.
        num_steps: How many of the store's steps, from its first, will be read; None for all.
        augmented_copies: Copies of each frame, changed by `augment`, to encode as well.
        patches: Keep the patch tokens; without them N is the number of global tokens, and the cache a fraction as large.
        precision: Of the encoder's forward pass, which changes a token by about 0.3 % of how much tokens vary; `auto` is bfloat16
            on processors that multiply in it (not for TorchScript files, whose affair it is, and not on a GPU).
        batch_size: Frames encoded together.
        on_progress: Called with the number of frames done and in all; the first call tells what was there.

    Raises:
        UserError: The frames' size does not fit the encoder, or the tokens do not fit the disk.
    """
    assert encoder.frozen, "only a frozen encoder's tokens stay valid"
    identity = {
        "encoder": encoder.config.name,
        "weights": weights_hash(encoder.backbone),
        "image_sizes": [list(encoder.preprocess.seen(*store.features[key].shape[:2])) for key in sorted(image_keys)],
        "store": store.fingerprint(),
        "cameras": sorted(image_keys),
        "format": _FORMAT,
    }
    if not patches:
        identity["tokens"] = "global"
    if precision == "auto":
        is_plain = encoder.config.name != TORCHSCRIPT and encoder.preprocess.mean.device.type == "cpu"
        precision = "bfloat16" if is_plain and multiplies_bfloat16() else "float32"
    if precision != "float32":
        identity["precision"] = precision
    with only_one(cache_root / f"{encoder.config.name}_{_digest(identity)}.zarr"):
        groups = [_open_group(cache_root, encoder.config.name, identity, copy) for copy in range(1 + augmented_copies)]
        arrays = [[_token_array(group, store, encoder, key, patches) for key in image_keys] for group in groups]
        # Multiples of the chunk length, so that no chunk is written twice, also where a later run wants more steps.
        size = max(batch_size // _FRAMES_PER_CHUNK, 1) * _FRAMES_PER_CHUNK
        end = store.num_steps if num_steps is None else min(-(-num_steps // size) * size, store.num_steps)
        every = [array for of_copy in arrays for array in of_copy]
        _check_disk(every, end, cache_root)
        missing = [[_missing(array, end, size) for array in of_copy] for of_copy in arrays]
        total = len(every) * end
        done = total - sum(last - first for of_copy in missing for spans in of_copy for first, last in spans)
        on_progress(done, total)
        with explains_full_disk(cache_root, "the tokens so far are kept"):
            for copy, (of_copy, missing_of_copy) in enumerate(zip(arrays, missing, strict=True)):
                for key, array, spans in zip(image_keys, of_copy, missing_of_copy, strict=True):
                    for frames in _encode(array, store, encoder, key, copy, spans, precision):
                        done += frames
                        on_progress(done, total)
        return FeatureCache(groups, image_keys, end)


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _open_group(cache_root: Path, encoder_name: str, identity: dict[str, Any], copy: int) -> zarr.Group:
    if copy:
        identity = {**identity, "augmentation": asdict(AUGMENTATION), "copy": copy}
    place = cache_root / f"{encoder_name}_{_digest(identity)}.zarr"
    if place.exists():
        try:
            group = zarr.open_group(str(place), mode="r+")
            damaged = group.attrs["identity"] != json.loads(json.dumps(identity)) or any(
                _frames_done(array) < 0 for _, array in group.arrays()
            )
        except Exception:  # whatever zarr says of JSON that is not its own
            damaged = True
        if not damaged:
            return group
        log.warning("%s is made again: what it says of itself is damaged", place)
        shutil.rmtree(place)
    with atomic_path(place) as unfinished:
        zarr.open_group(str(unfinished), mode="w").attrs["identity"] = identity
    return zarr.open_group(str(place), mode="r+")


def _token_array(group: zarr.Group, store: DemoStore, encoder: VisionEncoder, key: str, patches: bool) -> zarr.Array:
    """Return the array of a camera's tokens, made where it is absent."""
    height, width, _ = store.features[key].shape
    h, w = encoder.grid(height, width)
    tokens = encoder.num_global + (h * w if patches else 0)
    if key not in group:
        group.create_array(
            key,
            shape=(store.num_steps, tokens, encoder.width),
            chunks=(_FRAMES_PER_CHUNK, tokens, encoder.width),
            dtype="float16",
            compressors=(Crc32cCodec(),),  # tokens are noise to a compressor
        )
    array = group[key]
    assert isinstance(array, zarr.Array)
    return array


def _check_disk(arrays: Sequence[zarr.Array], end: int, cache_root: Path) -> None:
    """Check that what is still to be encoded fits the disk, rather than find out hours later."""
    wanted = sum(array.nbytes // array.shape[0] * max(end - _frames_done(array), 0) for array in arrays)
    free = shutil.disk_usage(cache_root).free
    if wanted > free:
        raise UserError(
            f"The tokens of all frames take {wanted / 2**30:.1f} GiB, and {cache_root} has {free / 2**30:.1f} GiB left: "
            f"set encoder.image_size (smaller images have fewer tokens), trainer.augmented_copies lower, "
            f"trainer.cache_features=false, or output_root to a larger disk."
        )


def _frames_done(array: zarr.Array) -> int:
    return int(array.attrs.get("frames_done", 0))  # type: ignore[arg-type]


def _missing(array: zarr.Array, end: int, size: int) -> list[tuple[int, int]]:
    """Return first frame and end of every batch that is still to be encoded; damaged chunks are removed and come first."""
    done = min(_frames_done(array), end)
    damaged = [first for first in range(0, done, _FRAMES_PER_CHUNK) if not _is_whole(_chunk_file(array, first), array)]
    if damaged:
        for first in damaged:
            _chunk_file(array, first).unlink(missing_ok=True)
        log.warning("%d chunks of %s are damaged and encoded again", len(damaged), array.store_path)
    again = [(first, min(first + _FRAMES_PER_CHUNK, done)) for first in damaged]
    return again + [(first, min(first + size, end)) for first in range(done, end, size)]


def _chunk_file(array: zarr.Array, first: int) -> Path:
    assert isinstance(array.store, LocalStore)
    return array.store.root / array.path / "c" / str(first // _FRAMES_PER_CHUNK) / "0" / "0"


def _is_whole(file: Path, array: zarr.Array) -> bool:
    """Tell whether a chunk's file is there and has the checksum that stands at its end."""
    try:
        content = file.read_bytes()
    except OSError:
        return False
    checksum = google_crc32c.value(content[:-4]).to_bytes(4, "little")
    return len(content) == math.prod(array.chunks) * array.dtype.itemsize + 4 and checksum == content[-4:]


def _encode(
    array: zarr.Array,
    store: DemoStore,
    encoder: VisionEncoder,
    key: str,
    copy: int,
    spans: Sequence[tuple[int, int]],
    precision: str,
) -> Iterator[int]:
    """Encode a copy of a camera's frames in batches; yield the number of frames of each batch."""
    device = encoder.preprocess.mean.device  # a TorchScript encoder may have no parameters
    for first, last, images_BCHW in _prepared_ahead(store, key, copy, spans, device):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            tokens = encoder(images_BCHW)
        tokens_BND = tokens.global_tokens if array.shape[1] == encoder.num_global else tokens.flatten()
        array[first:last] = tokens_BND.to(torch.float16).cpu().numpy()
        array.attrs["frames_done"] = max(last, _frames_done(array))
        yield last - first


def _prepared_ahead(
    store: DemoStore, key: str, copy: int, spans: Sequence[tuple[int, int]], device: torch.device
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield first step, end and images (B, 3, H, W) of every batch; a thread prepares the next one meanwhile."""

    def prepare(first: int, last: int) -> Tensor:
        images_BCHW = frames_to_images(torch.from_numpy(store.read(key, first, last)).to(device))
        if not copy:
            return images_BCHW
        steps = np.arange(first, last)
        episodes = np.searchsorted(store.episode_ends, steps, side="right")
        steps_in_episode = steps - np.concatenate([[0], store.episode_ends])[episodes]
        return augment(images_BCHW, episodes.tolist(), steps_in_episode.tolist(), copy, key)

    with ThreadPoolExecutor(1, "frames") as preparer:
        ahead = [preparer.submit(prepare, *span) for span in spans[:1]]
        for number, (first, last) in enumerate(spans):
            images_BCHW = ahead.pop().result()
            ahead += [preparer.submit(prepare, *span) for span in spans[number + 1 : number + 2]]
            yield first, last, images_BCHW
