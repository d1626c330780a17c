"""Demonstrations: the zarr store, training windows from it, collection, and conversion to and from LeRobot's format."""

from pixio_robot.demos.store import DemoStore, Feature
from pixio_robot.demos.windows import WindowDataset

__all__ = ["DemoStore", "Feature", "WindowDataset"]
