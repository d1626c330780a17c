"""Opens an image source from plain values, as a YAML file holds them."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.pretraining.sources.cache import ImageCache, demo_images, folder_images, shard_images
from pixio_robot.pretraining.sources.curation import Curation
from pixio_robot.pretraining.sources.mixture import Mixture
from pixio_robot.pretraining.sources.shards import ShardStream
from pixio_robot.pretraining.sources.stream import ImageStream


def open_source(values: dict[str, Any], cache_dir: Path) -> ImageCache | ImageStream:
    """Open the images that `images` of configs/pretrain_encoder.yaml describes.

    Args:
        values: `kind`, and the settings of that kind.
        cache_dir: Where decoded images are kept, by the kinds that decode once.

    Raises:
        UserError: Kind or setting are unknown (the nearest is offered), or the source cannot be opened.
    """
    kind = values.get("kind")
    if kind not in _OPENERS:
        raise UserError(f"Unknown kind of images {kind!r}. {nearest_name(str(kind), _OPENERS)}")
    opener = _OPENERS[kind]
    settings = {key: value for key, value in values.items() if key != "kind"}
    known = {name: parameter for name, parameter in inspect.signature(opener).parameters.items() if name != "cache_dir"}
    for name in settings:
        if name not in known:
            raise UserError(f"Unknown setting {name!r} of images of kind {kind}. {nearest_name(name, known)}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and settings.get(name) is None:
            raise UserError(f"images.{name} must be given for images of kind {kind}.")
    return opener(cache_dir=cache_dir, **settings)


def _folder(cache_dir: Path, path: str, side: int = 160) -> ImageCache:
    return folder_images(Path(path), cache_dir, side)


def _demos(cache_dir: Path, path: str, side: int = 128, image_keys: Sequence[str] | None = None) -> ImageCache:
    return demo_images(Path(path), cache_dir, side, image_keys)


def _shards(
    cache_dir: Path,
    path: str | Sequence[str],
    side: int = 512,
    shards_in_memory: int = 2,
    curation: dict[str, Any] | None = None,
    decode_once: bool = False,
) -> ImageCache | ImageStream:
    if not decode_once:
        return ShardStream(path, side, shards_in_memory, _curation(curation))
    if curation:
        raise UserError("Curation draws images anew in every epoch: leave images.decode_once or images.curation out.")
    return shard_images(path, cache_dir, side)


def _lerobot(
    cache_dir: Path,
    path: str,
    side: int = 256,
    every: int = 5,
    cameras: Sequence[str] | None = None,
    pieces_in_memory: int = 8,
) -> ImageStream:
    try:
        from pixio_robot.pretraining.sources.lerobot_frames import LeRobotStream
    except ImportError as error:
        raise UserError("LeRobotDatasets need av and pyarrow: pip install 'pixio-robot[pretraining]'.") from error
    return LeRobotStream(path, side, every, cameras, pieces_in_memory)


def _live(
    cache_dir: Path,
    generator: str,
    side: int = 160,
    seed: int = 0,
    families: Sequence[str] | None = None,
    workers: int | None = None,
    units_in_memory: int = 16,
) -> ImageStream:
    from pixio_robot.pretraining.sources.live import LiveStream

    return LiveStream(generator, side, seed, families, workers, units_in_memory)


def _mixture(cache_dir: Path, sources: Sequence[dict[str, Any]]) -> ImageStream:
    opened: dict[str, ImageCache | ImageStream] = {}
    weights = []
    for number, entry in enumerate(sources):
        values = dict(entry)
        weights.append(_weight(values.pop("weight", None)))
        opened[f"{values.get('kind')}{number}"] = open_source(values, cache_dir)
    return Mixture(opened, weights)


def _weight(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"Each of images.sources needs a weight, a positive number, not {value!r}.")
    return float(value)


def _curation(values: dict[str, Any] | None) -> Curation | None:
    if values is None:
        return None
    known = list(inspect.signature(Curation).parameters)
    for name in values:
        if name not in known:
            raise UserError(f"Unknown setting {name!r} of images.curation. {nearest_name(name, known)}")
    return Curation(**values)


_OPENERS: dict[str, Callable[..., ImageCache | ImageStream]] = {
    "folder": _folder,
    "demos": _demos,
    "shards": _shards,
    "lerobot": _lerobot,
    "live": _live,
    "mixture": _mixture,
}
