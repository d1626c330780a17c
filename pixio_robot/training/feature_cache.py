"""Tokens of a frozen encoder, computed once for every frame of a demonstration store.

Shape letters: T steps of the store, B batch, N encoder tokens (global first, then patches), D width.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import zarr
from torch import Tensor

from pixio_robot.demos import DemoStore
from pixio_robot.encoders import VisionEncoder, frames_to_images, weights_hash

_FRAMES_PER_CHUNK = 32
_IN_MEMORY_LIMIT = 1 << 30
"""Bytes up to which all tokens of a store are kept in memory for training."""


class FeatureCache:
    """Encoder tokens (T, N, D) in float16 for each camera, read by step index."""

    def __init__(self, group: zarr.Group, image_keys: Sequence[str]) -> None:
        """Open a complete cache; use `cache_features` to make one."""
        self._arrays: dict[str, zarr.Array | np.ndarray] = {key: group[key] for key in image_keys}  # type: ignore[misc]
        self.num_bytes = sum(array.nbytes for array in self._arrays.values())
        if self.num_bytes <= _IN_MEMORY_LIMIT:
            self._arrays = {key: np.asarray(array[:]) for key, array in self._arrays.items()}

    def read(self, image_key: str, steps: np.ndarray) -> Tensor:
        """Return the tokens of a camera at global step indices, float32 (B, N, D)."""
        array = self._arrays[image_key]
        rows = array[steps] if isinstance(array, np.ndarray) else array.oindex[steps]
        return torch.from_numpy(np.asarray(rows, dtype=np.float32))


def cache_features(
    store: DemoStore,
    encoder: VisionEncoder,
    image_keys: Sequence[str],
    cache_root: Path,
    *,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureCache:
    """Encode every frame of a store once, or pick up what an earlier run has encoded.

    The cache's folder name follows from the encoder's weights and preprocessing and the store's content, so
    that a changed encoder or dataset never meets old tokens. An interrupted run continues where it stopped.

    Args:
        store: Demonstrations.
        encoder: A frozen encoder.
        image_keys: The cameras to encode.
        cache_root: Folder that holds all caches.
        batch_size: Frames encoded together.
        on_progress: Called with the number of frames done and in all; the first call tells what was there.

    Raises:
        UserError: The frames' size does not fit the encoder.
    """
    assert encoder.frozen, "only a frozen encoder's tokens stay valid"
    identity = {
        "encoder": encoder.config.name,
        "weights": weights_hash(encoder.backbone),
        "image_size": encoder.config.image_size,
        "store": store.fingerprint(),
        "cameras": sorted(image_keys),
    }
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    group = zarr.open_group(str(cache_root / f"{encoder.config.name}_{name}.zarr"), mode="a")
    if "identity" not in group.attrs:
        group.attrs["identity"] = identity
    arrays = {key: _token_array(group, store, encoder, key) for key in image_keys}
    total = len(image_keys) * store.num_steps
    done = sum(_frames_done(array) for array in arrays.values())
    on_progress(done, total)
    for key, array in arrays.items():
        for frames in _encode_missing(array, store, encoder, key, batch_size):
            done += frames
            on_progress(done, total)
    return FeatureCache(group, image_keys)


def _token_array(group: zarr.Group, store: DemoStore, encoder: VisionEncoder, key: str) -> zarr.Array:
    """Return the array of a camera's tokens, made where it is absent."""
    height, width, _ = store.features[key].shape
    h, w = encoder.grid(height, width)
    if key not in group:
        group.create_array(
            key,
            shape=(store.num_steps, encoder.num_global + h * w, encoder.width),
            chunks=(_FRAMES_PER_CHUNK, encoder.num_global + h * w, encoder.width),
            dtype="float16",
            compressors=None,  # tokens are noise to a compressor
        )
    array = group[key]
    assert isinstance(array, zarr.Array)
    return array


def _frames_done(array: zarr.Array) -> int:
    return int(array.attrs.get("frames_done", 0))  # type: ignore[arg-type]


def _encode_missing(
    array: zarr.Array, store: DemoStore, encoder: VisionEncoder, key: str, batch_size: int
) -> Iterator[int]:
    """Encode a camera's frames from where an earlier run stopped; yield the number of frames of each batch."""
    device = next(encoder.parameters()).device
    # Multiples of the chunk length, so that no chunk is written twice.
    step = max(batch_size // _FRAMES_PER_CHUNK, 1) * _FRAMES_PER_CHUNK
    for first in range(_frames_done(array), store.num_steps, step):
        last = min(first + step, store.num_steps)
        frames_BHWC = torch.from_numpy(store.read(key, first, last)).to(device)
        tokens_BND = encoder(frames_to_images(frames_BHWC)).flatten()
        array[first:last] = tokens_BND.to(torch.float16).cpu().numpy()
        array.attrs["frames_done"] = last
        yield last - first
