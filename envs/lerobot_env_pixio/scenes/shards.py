"""Render tar shards of randomised frames with several worker processes, resumable at any shard."""

import functools
import io
import json
import multiprocessing
import os
import socket
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
from PIL import Image

from lerobot_env_pixio.scenes.families import FAMILIES, FRAMES_PER_SHARD, family_shares, shard_families
from lerobot_env_pixio.scenes.live import open_renderer

JPEG_QUALITY = 95
_VERSIONED = ("mujoco", "robosuite", "metaworld", "gym-aloha", "numpy", "pillow")


@dataclass(frozen=True)
class FrameShards:
    """What a folder of shards holds; equal descriptions give equal files.

    Attributes:
        frames: Number of frames in all.
        seed: Seed of every random choice.
        image_size: Side of the square frames in pixels.
        families: Scene families that take turns; keys of `FAMILIES`.
    """

    frames: int
    seed: int = 0
    image_size: int = 160
    families: tuple[str, ...] = tuple(FAMILIES)

    def __post_init__(self) -> None:
        """Reject unknown families and empty selections."""
        family_shares(self.families)
        if self.frames < 1:
            raise ValueError("nothing to render: frames must be at least 1.")

    @functools.cached_property
    def shard_names(self) -> tuple[str, ...]:
        """File name of each shard, `<family>-<shard>.tar`; the last one may be short."""
        shards = -(-self.frames // FRAMES_PER_SHARD)
        return tuple(f"{name}-{shard:05d}.tar" for shard, name in enumerate(shard_families(shards, self.families)))

    def shard_indices(self, shard: int) -> range:
        """Indices of the frames of a shard."""
        return range(shard * FRAMES_PER_SHARD, min((shard + 1) * FRAMES_PER_SHARD, self.frames))


_progress: Synchronized | None = None
_unfinished: Path | None = None


def _start_worker(progress: Synchronized) -> None:
    global _progress
    _progress = progress
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that hands out shards was killed: it would wait for more without end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if _unfinished is not None:
        _unfinished.unlink(missing_ok=True)
    os._exit(1)


def _render_shard(description: FrameShards, shard: int, output: Path) -> None:
    """Write a shard beside the folder's others and move it in when complete."""
    global _unfinished
    name = description.shard_names[shard]
    renderer = open_renderer(name.rsplit("-", 1)[0], description.image_size, description.seed)
    _unfinished = partial = output / f".partial-{name}"
    try:
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
            for index in description.shard_indices(shard):
                _add_frame(archive, renderer.frame(index), f"{index:07d}.jpg")
                if _progress is not None:
                    with _progress.get_lock():
                        _progress.value += 1
        os.replace(partial, output / name)
    finally:
        partial.unlink(missing_ok=True)
        renderer.close()


def _add_frame(archive: tarfile.TarFile, frame_HWC: np.ndarray, name: str) -> None:
    encoded = io.BytesIO()
    Image.fromarray(frame_HWC).save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    member = tarfile.TarInfo(name)
    member.size = encoded.tell()
    encoded.seek(0)
    archive.addfile(member, encoded)


def _is_complete(shard: Path, frames: int) -> bool:
    """Tell whether a shard is there; the last one of an earlier, smaller rendering is shorter than it should be."""
    try:
        with tarfile.open(shard) as archive:
            return len(archive.getnames()) >= frames
    except (FileNotFoundError, tarfile.TarError):
        return False


def _describe(description: FrameShards, output: Path) -> None:
    per_family = Counter[str]()
    for shard, name in enumerate(description.shard_names):
        per_family[name.rsplit("-", 1)[0]] += len(description.shard_indices(shard))
    record = {
        "command": " ".join(sys.argv),
        "config": asdict(description),
        "frames_per_family": dict(per_family),
        "shares": family_shares(description.families),
        "scenes": {name: asdict(FAMILIES[name]) for name in description.families},
        "frames_per_shard": FRAMES_PER_SHARD,
        "jpeg_quality": JPEG_QUALITY,
        "versions": {name: version(name) for name in _VERSIONED},
    }
    # Other machines may be rendering other shards into the folder.
    temporary = output / f".description.{socket.gethostname()}.{os.getpid()}.json"
    try:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(temporary, output / "description.json")
    finally:
        temporary.unlink(missing_ok=True)


def _check_same_frames(description: FrameShards, output: Path) -> None:
    path = output / "description.json"
    if not path.exists():
        return
    before = json.loads(path.read_text())["config"]
    for name in ("seed", "image_size", "families"):
        wanted = json.loads(json.dumps(getattr(description, name)))
        if before[name] != wanted:
            raise ValueError(
                f"{output} holds frames rendered with {name}={before[name]}, not {wanted}: "
                "choose another output folder, or the same settings to continue."
            )


def missing_shards(description: FrameShards, output: Path) -> list[str]:
    """Return the names of the shards that are not in a folder, or not whole."""
    return [
        name
        for shard, name in enumerate(description.shard_names)
        if not _is_complete(output / name, len(description.shard_indices(shard)))
    ]


def render_shards(
    description: FrameShards,
    output: Path,
    workers: int,
    report: Callable[[int], None] = lambda frames: None,
    only: Collection[str] | None = None,
) -> int:
    """Render what is missing of a folder of webdataset shards, `<index>.jpg` in `<output>/<family>-<shard>.tar`.

    Args:
        description: Which frames.
        output: The folder; complete shards already there are kept.
        workers: Number of processes, each with an OpenGL context of its own. The frames do not depend on it.
        report: Called a few times per second with the number of frames that are there.
        only: Names of the shards to render, of those in the description; None for all.

    Returns:
        The number of frames that were there before, of these shards.

    Raises:
        ValueError: When the folder holds frames of another seed, size or choice of families.
    """
    output.mkdir(parents=True, exist_ok=True)
    _check_same_frames(description, output)
    _describe(description, output)
    asked = [shard for shard, name in enumerate(description.shard_names) if only is None or name in only]
    missing = set(missing_shards(description, output))
    pending = [shard for shard in asked if description.shard_names[shard] in missing]
    present = sum(len(description.shard_indices(shard)) for shard in asked if shard not in pending)
    report(present)
    if not pending:
        return present
    context = multiprocessing.get_context("spawn")
    rendered = context.Value("q", 0)
    work = functools.partial(_render_shard, description, output=output)
    with ProcessPoolExecutor(workers, context, _start_worker, (rendered,)) as pool:
        futures = [pool.submit(work, shard) for shard in pending]
        try:
            while (state := wait(futures, timeout=0.3, return_when=FIRST_EXCEPTION)).not_done:
                report(present + rendered.value)
                for future in state.done:
                    future.result()
        except BaseException:
            # Only here: a program that ends before the pool has may leave workers that wait for tasks without end.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for future in futures:
        future.result()
    report(present + rendered.value)
    return present
