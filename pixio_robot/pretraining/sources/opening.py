"""Opens an image source that settings describe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixio_robot.common.errors import UserError
from pixio_robot.pretraining.images import (
    DemoImages,
    FolderImages,
    Images,
    LeRobotImages,
    LiveImages,
    ShardImages,
    images_from,
)
from pixio_robot.pretraining.sources.cache import ImageCache, demo_images, folder_images, shard_images
from pixio_robot.pretraining.sources.mixture import Mixture
from pixio_robot.pretraining.sources.shards import ShardStream
from pixio_robot.pretraining.sources.stream import ImageStream


def open_source(images: Images | Mapping[str, Any], cache_dir: Path) -> ImageCache | ImageStream:
    """Open the images that `images` of a training script describes.

    Args:
        images: Settings of one of the kinds, or plain values for them.
        cache_dir: Where decoded images are kept, by the kinds that decode once.

    Raises:
        UserError: A setting is wrong, or the source cannot be opened.
    """
    if isinstance(images, Mapping):
        images = images_from(images)
    if isinstance(images, FolderImages):
        return folder_images(Path(images.path), cache_dir, images.side)
    if isinstance(images, DemoImages):
        return demo_images(Path(images.path), cache_dir, images.side, images.image_keys)
    if isinstance(images, ShardImages):
        if images.decode_once:
            return shard_images(images.path, cache_dir, images.side)
        return ShardStream(images.path, images.side, images.shards_in_memory, images.curation, images.unreadable)
    if isinstance(images, LeRobotImages):
        return _lerobot(images)
    if isinstance(images, LiveImages):
        from pixio_robot.pretraining.sources.live import LiveStream

        return LiveStream(
            images.generator, images.side, images.seed, images.families, images.workers, images.units_in_memory
        )
    opened = {f"{part.kind}{number}": open_source(part, cache_dir) for number, (part, _) in enumerate(images.parts())}
    return Mixture(opened, [weight for _, weight in images.parts()])


def _lerobot(images: LeRobotImages) -> ImageStream:
    try:
        from pixio_robot.pretraining.sources.lerobot_frames import LeRobotStream
    except ImportError as error:
        raise UserError("LeRobotDatasets need av and pyarrow: pip install 'pixio-robot[pretraining]'.") from error
    return LeRobotStream(images.path, images.side, images.every, images.cameras, images.pieces_in_memory)
