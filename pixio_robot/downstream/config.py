"""What a comparison of encoders is told: rows, tasks, data and the protocol of each, read without torch."""

from typing import Literal

from pixio_robot.common.settings import Place, settings
from pixio_robot.downstream.dense.config import DenseProtocol
from pixio_robot.downstream.neighbours.config import NeighboursProtocol
from pixio_robot.downstream.probes.config import ProbesProtocol
from pixio_robot.downstream.robot_learning.config import RobotLearningProtocol
from pixio_robot.downstream.robustness.config import RobustnessProtocol
from pixio_robot.downstream.two_view.config import TwoViewProtocol

TaskName = Literal["depth", "segmentation", "two_view", "neighbours", "robot_learning", "probes", "robustness"]


@settings(kw_only=True)
class Data:
    """Where public datasets lie; without any, simulated scenes stand for them."""

    nyu: Place | None = None
    """Folder of NYUv2 depth (`sync/`, `official_splits/`)."""
    kitti: Place | None = None
    """Folder of KITTI depth (`images/`, `annotations/`)."""
    ade20k: Place | None = None
    """Folder of ADE20K (`images/`, `annotations/`)."""
    voc: Place | None = None
    """Folder of Pascal VOC (`JPEGImages/`, `SegmentationClass/`)."""
    loveda: Place | None = None
    """Folder of LoveDA (`Train/`, `Val/`)."""
    wai: Place | None = None
    """Folder of scenes in the WAI layout, for two views."""
    images: Place | None = None
    """Folder of `train/<class>/` and `test/<class>/` (or `val/`), for neighbours."""
    adroit: Place | None = None
    """Folder of Adroit experts as arrays (`pen.npz`, …), for robot learning."""
    cortexbench: Place | None = None
    """Folder of the public expert files (`<suite>-expert-v1.0/<env>.pickle`), for robot learning."""


@settings(kw_only=True)
class Protocol:
    """How each task is run; the group `protocol` has the paper's and a small form for a CPU."""

    probes: ProbesProtocol = ProbesProtocol()
    """Linear maps fitted in closed form on simulated scenes."""
    neighbours: NeighboursProtocol = NeighboursProtocol()
    """k nearest neighbours."""
    robustness: RobustnessProtocol = RobustnessProtocol()
    """Policies, nominal and under changed looks."""
    dense: DenseProtocol = DenseProtocol()
    """Depth and segmentation."""
    two_view: TwoViewProtocol = TwoViewProtocol()
    """3D from two views."""
    robot_learning: RobotLearningProtocol = RobotLearningProtocol()
    """Policies cloned on frozen embeddings."""
