"""Image sources of pretraining: decoded caches with random access, and endless streams."""

from pixio_robot.pretraining.sources.cache import ImageCache, demo_images, folder_images
from pixio_robot.pretraining.sources.mixture import Mixture
from pixio_robot.pretraining.sources.opening import open_source
from pixio_robot.pretraining.sources.stream import ImageStream, Lane, Sample, State

ImageSource = ImageCache | ImageStream

__all__ = [
    "ImageCache",
    "ImageSource",
    "ImageStream",
    "Lane",
    "Mixture",
    "Sample",
    "State",
    "demo_images",
    "folder_images",
    "open_source",
]
