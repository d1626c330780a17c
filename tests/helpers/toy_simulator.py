"""A simulator of coloured squares in the place of MuJoCo's scenes: everything is known, and rendering takes no time."""

import dataclasses

import numpy as np

from pixio_robot.downstream.scenes import Simulator

FAMILIES = ("bright", "dark")


@dataclasses.dataclass
class Sample:
    frame: np.ndarray
    depth: np.ndarray
    segmentation: np.ndarray
    gripper_poses: np.ndarray
    object_positions: np.ndarray
    focal_length: float


class Squares:
    """Frames of a family: brightness is depth, the square is class 1; `rendered` counts all frames ever."""

    rendered = 0

    def __init__(self, family: str, image_size: int, seed: int) -> None:
        self._side, self._seed = image_size, [seed, FAMILIES.index(family)]

    def sample(self, index: int) -> Sample:
        Squares.rendered += 1
        rng, side = np.random.default_rng([*self._seed, index]), self._side
        base, half = (170 if self._seed[1] == 0 else 60), side // 2
        column = int(rng.integers(half))
        frame = np.full((side, side, 3), base, np.uint8) + rng.integers(20, size=(side, side, 3), dtype=np.uint8)
        segmentation = np.zeros((side, side), np.uint8)
        segmentation[half // 2 : half // 2 + half, column : column + half] = 1
        frame[segmentation == 1, 0] += 60
        pose = np.eye(4)
        pose[:3, 3] = ((column + half / 2) / side - 0.5, 0.0, 1.0)
        depth = np.where(segmentation == 1, 1.0, 2.0).astype(np.float32)
        return Sample(frame, depth, segmentation, pose[None], pose[None, :3, 3], focal_length=side / 2)

    def close(self) -> None:
        pass


def toy_simulator() -> Simulator:
    return Simulator(families=FAMILIES, class_names=("floor", "square"), frames_per_look=1, renderer=Squares)
