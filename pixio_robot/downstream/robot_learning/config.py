"""How policies on frozen encoders are trained and measured, as settings: read without torch."""

from typing import Literal

from pixio_robot.common.settings import Count, Positive, Whole, settings

SuiteName = Literal["metaworld", "adroit", "dmc", "trifinger"]
MetaworldTask = Literal["assembly", "bin-picking", "button-press-topdown", "drawer-open", "hammer"]
AdroitTask = Literal["pen", "relocate"]
TrifingerTask = Literal["reach", "move"]
DmcTask = Literal["walker_stand", "walker_walk", "reacher_easy", "cheetah_run", "finger_spin"]


@settings(kw_only=True)
class MetaworldProtocol:
    """Meta-World, demonstrated by its own experts."""

    tasks: tuple[MetaworldTask, ...] = ("button-press-topdown", "drawer-open")
    """Which tasks."""
    demonstrations: Count = 10
    """Of each task."""
    rollouts: Count = 10
    """Of each evaluation."""
    steps: Count = 150
    """Length of every episode, 500 at most; a success is what is done at its last step."""


@settings(kw_only=True)
class AdroitProtocol:
    """Adroit, demonstrated by experts that the user has."""

    tasks: tuple[AdroitTask, ...] = ("relocate",)
    """Which tasks; episodes of the pen have 100 steps, those of relocate 200."""
    demonstrations: Count = 10
    """Of each task."""
    rollouts: Count = 10
    """Of each evaluation."""


@settings(kw_only=True)
class DmcProtocol:
    """The DeepMind Control Suite, from the public expert files."""

    tasks: tuple[DmcTask, ...] = ("reacher_easy",)
    """Which tasks."""
    demonstrations: Count = 10
    """Of each task, the first of its file."""
    rollouts: Count = 5
    """Of each evaluation."""


@settings(kw_only=True)
class TrifingerProtocol:
    """TriFinger, from the public demonstrations; without a simulator, by the actions of others of them."""

    tasks: tuple[TrifingerTask, ...] = ("reach",)
    """Which tasks."""
    demonstrations: Count = 10
    """Of each task, the first by name."""
    rollouts: Count = 5
    """Demonstrations held out: the next ones."""
    reach_epochs: Count = 100
    """Passes over the demonstrations of reaching the cube."""
    move_epochs: Count = 100
    """Passes over the demonstrations of moving the cube, of which there are 1,000 in the paper."""
    batch_size: Count = 32
    """Windows per step."""
    learning_rate: Positive = 1e-4
    """Adam's, constant."""
    hidden_width: Count = 2000
    """Width of the two hidden layers."""
    image_size: Count = 224
    """Side in pixels to which the frames of 270 are resized, where the encoder names none."""


@settings(kw_only=True)
class RobotLearningProtocol:
    """CortexBench: behaviour cloning on frozen embeddings (arXiv 2303.18240; arXiv 2512.15715, table 5)."""

    suites: tuple[SuiteName, ...] | None = None
    """Which suites; null: metaworld, and those whose data is named."""
    metaworld: MetaworldProtocol = MetaworldProtocol()
    """Five tasks in the paper."""
    adroit: AdroitProtocol = AdroitProtocol()
    """Two tasks in the paper."""
    dmc: DmcProtocol = DmcProtocol()
    """Five tasks in the paper."""
    trifinger: TrifingerProtocol = TrifingerProtocol()
    """Two tasks in the paper."""
    image_size: Count = 96
    """Side of a camera frame in pixels; public expert files have theirs (256) and keep it."""
    render_profile: Literal["lite", "fast", "standard"] = "lite"
    """How frames are drawn: `standard` as the simulator ships."""
    seeds: tuple[Whole, ...] = (100,)
    """Of training: weights and the order of windows."""
    epochs: Count = 100
    """Passes over the demonstrations."""
    evaluate_every: Whole = 0
    """Epochs between evaluations during training, of which the highest is told beside the final one; 0: the end only."""
    batch_size: Count = 256
    """Windows per step."""
    learning_rate: Positive = 1e-3
    """Adam's, constant."""
    hidden_width: Count = 256
    """Width of the three hidden layers."""
    workers: Count = 2
    """Processes that demonstrate and roll out; they change no result."""
