"""Image sources of pretraining: decoded caches with random access, and endless streams."""

from pixio_robot.pretraining.sources.cache import ImageCache, demo_images, folder_images
from pixio_robot.pretraining.sources.stream import ImageStream, Lane, Sample, State

ImageSource = ImageCache | ImageStream

__all__ = ["ImageCache", "ImageSource", "ImageStream", "Lane", "Sample", "State", "demo_images", "folder_images"]
