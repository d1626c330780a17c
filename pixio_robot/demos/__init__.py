"""Demonstrations: the zarr store, training windows from it, collection, and LeRobot's format."""

from pixio_robot.demos.store.layout import Feature
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.demos.windows.sampling import Sampling, WindowSampler, window_weights
from pixio_robot.demos.windows.windows import WindowDataset

__all__ = ["DemoStore", "Feature", "Sampling", "WindowDataset", "WindowSampler", "window_weights"]
