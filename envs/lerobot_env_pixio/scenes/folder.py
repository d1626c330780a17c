"""Render a folder of randomised frames with several worker processes, resumable at any point."""

import functools
import json
import multiprocessing
import os
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from PIL import Image

from lerobot_env_pixio.scenes.families import FAMILIES, FRAMES_PER_SHARD, check_families, shard_family
from lerobot_env_pixio.scenes.renderer import SceneRenderer

JPEG_QUALITY = 95
_SHARDS_PER_JOB = 8  # long enough to pay for compiling a scene, short enough to share the work evenly


@dataclass(frozen=True)
class FrameFolder:
    """What a folder of frames holds; equal descriptions give equal files.

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
        check_families(self.families)
        if self.frames < 1 or not self.families:
            raise ValueError("nothing to render: frames must be at least 1 and families must name at least one.")

    def shard_path(self, shard: int) -> Path:
        """Where a shard lies below the folder: `<family>/<shard>`."""
        return Path(shard_family(shard, self.families)) / f"{shard:05d}"

    def shard_indices(self, shard: int) -> range:
        """Indices of the frames of a shard."""
        return range(shard * FRAMES_PER_SHARD, min((shard + 1) * FRAMES_PER_SHARD, self.frames))

    @property
    def shards(self) -> range:
        """All shards; the last one may be short."""
        return range(-(-self.frames // FRAMES_PER_SHARD))


_progress: Synchronized | None = None


def _start_worker(progress: Synchronized) -> None:
    global _progress
    _progress = progress


def _write_shard(renderer: SceneRenderer, description: FrameFolder, shard: int, output: Path) -> None:
    """Write a shard's frames beside the folder and move them in when complete."""
    final = output / description.shard_path(shard)
    partial = output / f".partial-{shard:05d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for index in description.shard_indices(shard):
        frame = Image.fromarray(renderer.frame(index))
        frame.save(partial / f"{index:07d}.jpg", quality=JPEG_QUALITY, subsampling=0)
        if _progress is not None:
            with _progress.get_lock():
                _progress.value += 1
    shutil.rmtree(final, ignore_errors=True)  # a shorter last shard of an earlier, smaller rendering
    final.parent.mkdir(exist_ok=True)
    os.replace(partial, final)


def _render_job(description: FrameFolder, shards: Sequence[int], output: Path) -> None:
    """Render shards of one family."""
    family = shard_family(shards[0], description.families)
    renderer = SceneRenderer(family, description.image_size, description.seed)
    for shard in shards:
        _write_shard(renderer, description, shard, output)
    renderer.close()


def _pending_jobs(description: FrameFolder, output: Path) -> list[list[int]]:
    by_family: dict[str, list[int]] = defaultdict(list)
    for shard in description.shards:
        folder = output / description.shard_path(shard)
        present = len(list(folder.glob("*.jpg"))) if folder.is_dir() else 0
        if present < len(description.shard_indices(shard)):
            by_family[shard_family(shard, description.families)].append(shard)
    jobs = [
        shards[start : start + _SHARDS_PER_JOB]
        for shards in by_family.values()
        for start in range(0, len(shards), _SHARDS_PER_JOB)
    ]
    return sorted(jobs, key=len, reverse=True)


def _describe(description: FrameFolder, output: Path) -> None:
    per_family = Counter[str]()
    for shard in description.shards:
        per_family[shard_family(shard, description.families)] += len(description.shard_indices(shard))
    record = {
        "command": " ".join(sys.argv),
        "config": asdict(description),
        "frames_per_family": dict(per_family),
        "scenes": {name: asdict(FAMILIES[name]) for name in description.families},
        "jpeg_quality": JPEG_QUALITY,
        "versions": {name: version(name) for name in ("mujoco", "robosuite", "numpy", "pillow")},
    }
    temporary = output / ".description.json"
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(temporary, output / "description.json")


def _check_same_frames(description: FrameFolder, output: Path) -> None:
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


def render_folder(
    description: FrameFolder, output: Path, workers: int, report: Callable[[int], None] = lambda frames: None
) -> int:
    """Render what is missing of a folder of frames, `<output>/<family>/<shard>/<index>.jpg`.

    Args:
        description: Which frames.
        output: The folder; complete shards already there are kept.
        workers: Number of processes, each with an OpenGL context of its own. The frames do not depend on it.
        report: Called a few times per second with the number of frames that are there.

    Returns:
        The number of frames that were there before.

    Raises:
        ValueError: When the folder holds frames of another seed, size or choice of families.
    """
    output.mkdir(parents=True, exist_ok=True)
    _check_same_frames(description, output)
    _describe(description, output)
    jobs = _pending_jobs(description, output)
    present = description.frames - sum(len(description.shard_indices(shard)) for job in jobs for shard in job)
    report(present)
    if not jobs:
        return present
    context = multiprocessing.get_context("spawn")
    rendered = context.Value("q", 0)
    work = functools.partial(_render_job, description, output=output)
    with ProcessPoolExecutor(workers, context, _start_worker, (rendered,)) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            while (state := wait(futures, timeout=0.3, return_when=FIRST_EXCEPTION)).not_done:
                report(present + rendered.value)
                for future in state.done:
                    future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    for future in futures:
        future.result()
    report(present + rendered.value)
    return present
