"""The shell around a policy or an encoder: raw camera frames and raw state in, actions in raw units out.

Shape letters: B batch, O observation steps, H and W image size, S state size, A action size.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.deployment.artifact.metadata import same_aspect
from pixio_robot.images.preprocessing import frames_to_images


class Normalisation(NamedTuple):
    """Normalised = (x − offset) / scale + shift; each of the size of x."""

    offset: Tensor
    scale: Tensor
    shift: Tensor


IDENTITY = Normalisation(torch.zeros(1), torch.ones(1), torch.zeros(1))


@dataclass(frozen=True)
class ShellLayout:
    """What goes into a core and what comes out of it."""

    image_sizes: dict[str, tuple[int, int]]
    """Height and width in pixels that the core takes, by the cameras' observation keys, in the core's order."""
    observation_steps: int = 1
    """O; where it is 1, observations have no axis of steps."""
    state: Normalisation | None = None
    """Of the state, each (S,); None for an encoder."""
    action: Normalisation = IDENTITY
    """Of the action, each (A,)."""
    noise_shape: tuple[int, int] | None = None
    """Of the noise that sampling starts from; None for a core that takes none."""
    tasks: int = 0
    """Number of tasks that the core is told apart; 0 for a core of one, which is not told."""


class Shell(nn.Module):
    """Prepares observations for a core, and its answer for the robot, without checking either.

    The core takes images in [0, 1] (a list, one (B, [O,] 3, H, W) per camera), the normalised state (B, [O,] S), and
    noise (B, horizon, A), and the number of the task (B,); the last three are unused zeros for a core that does not want them.
    """

    def __init__(self, core: nn.Module, layout: ShellLayout) -> None:
        super().__init__()
        self.core = core
        self.cameras = list(layout.image_sizes)
        self.sizes = list(layout.image_sizes.values())
        self.steps = layout.observation_steps
        self.has_state = layout.state is not None
        self.has_noise = layout.noise_shape is not None
        self.noise_shape = list(layout.noise_shape or (1, 1))
        self.tasks = layout.tasks
        for name, normalisation in (("state", layout.state or IDENTITY), ("action", layout.action)):
            for part in Normalisation._fields:
                self.register_buffer(f"{name}_{part}", getattr(normalisation, part).to(torch.float32).clone())
        self.state_offset: Tensor
        self.state_scale: Tensor
        self.state_shift: Tensor
        self.action_offset: Tensor
        self.action_scale: Tensor
        self.action_shift: Tensor

    def image(self, frames: Tensor, index: int) -> Tensor:
        """Return a camera's images (B, [O,] 3, H, W) in [0, 1] for its frames, uint8 (B, [O,] height, width, 3)."""
        height, width = self.sizes[index]
        rows = frames.to(self.state_offset.device)
        images = frames_to_images(rows.flatten(0, 1) if self.steps > 1 else rows)
        if images.size(2) != height or images.size(3) != width:
            images = functional.interpolate(
                images, size=[height, width], mode="bilinear", antialias=True, align_corners=False
            )
        return images.view(-1, self.steps, 3, height, width) if self.steps > 1 else images

    def answer(self, images: list[Tensor], observation: dict[str, Tensor]) -> Tensor:
        """Return actions in raw units, or tokens, for prepared images and the rest of an observation."""
        device = self.state_offset.device
        state = torch.zeros(1, device=device)
        if self.has_state:
            raw = observation["observation.state"].to(device, torch.float32)
            state = (raw - self.state_offset) / self.state_scale + self.state_shift
        noise = torch.zeros(1, device=device)
        if self.has_noise:
            noise = observation["noise"].to(device, torch.float32)
        task = torch.zeros(1, dtype=torch.int64, device=device)
        if self.tasks > 0:
            task = observation["task"].to(device)
        output = self.core(images, state, noise, task).to(torch.float32)
        return (output - self.action_shift) * self.action_scale + self.action_offset

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Return actions (B, horizon, A) in raw units, or tokens (B, N, D), for observations of the core's sizes."""
        images = [self.image(observation[camera], index) for index, camera in enumerate(self.cameras)]
        return self.answer(images, observation)


class CheckedShell(Shell):
    """A shell to be scripted: refuses what does not fit, each in a sentence, before the core sees anything.

    Cameras may have any resolution of the core's aspect ratio.
    """

    def __init__(
        self, core: torch.jit.ScriptModule, layout: ShellLayout, golden: dict[str, Tensor], expected: Tensor
    ) -> None:
        """Put the parts together.

        Args:
            core: Traced or scripted.
            layout: What goes in and out.
            golden: An observation.
            expected: What the eager path gives for it.
        """
        super().__init__(core, layout)
        self.golden_observation = golden
        self.golden_output = expected

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Return actions (B, horizon, A) in raw units, or tokens (B, N, D)."""
        images: list[Tensor] = []
        rows = -1
        for index, camera in enumerate(self.cameras):
            if camera not in observation:
                raise ValueError(f"{camera} is missing: the artifact reads {', '.join(self.cameras)}")
            frames = observation[camera]
            self.check_frames(camera, frames, index)
            if rows >= 0 and frames.size(0) != rows:
                raise ValueError(f"{camera} brings {frames.size(0)} observations, another camera {rows}")
            rows = frames.size(0)
            images.append(self.image(frames, index))
        if self.has_state:
            self.check_numbers(observation, "observation.state", self.state_offset.size(0), self.steps, rows)
        if self.has_noise:
            self.check_numbers(observation, "noise", self.noise_shape[1], self.noise_shape[0], rows)
        if self.tasks > 0:
            self.check_task(observation, rows)
        return self.answer(images, observation)

    def check_task(self, observation: dict[str, Tensor], rows: int) -> None:
        """Refuse tasks that are missing or are none of the core's."""
        if "task" not in observation:
            raise ValueError("task is missing: the artifact does several, and its metadata's `tasks` number them")
        task = observation["task"]
        if task.dtype != torch.int64 or list(task.size()) != [rows]:
            raise ValueError(f"task must be int64 {[rows]}, not another type or {task.size()}")
        if bool(((task < 0) | (task >= self.tasks)).any()):
            raise ValueError(f"task must be a number from 0 to {self.tasks - 1}, its place in the metadata's `tasks`")

    def check_frames(self, camera: str, frames: Tensor, index: int) -> None:
        """Refuse frames of the wrong dtype, shape, history or aspect ratio."""
        axes = "(B, height, width, 3)"
        if self.steps > 1:
            axes = f"(B, {self.steps}, height, width, 3)"
        first = 2 if self.steps > 1 else 1
        if frames.dtype != torch.uint8 or frames.dim() != first + 3 or frames.size(first + 2) != 3:
            raise ValueError(f"{camera} must be uint8 {axes} in RGB, not another type or {frames.size()}")
        if self.steps > 1 and frames.size(1) != self.steps:
            raise ValueError(f"{camera} brings {frames.size(1)} observation steps, the artifact reads {self.steps}")
        height, width = self.sizes[index]
        if not same_aspect(frames.size(first), frames.size(first + 1), height, width):
            raise ValueError(
                f"{camera} brings frames of {frames.size(first)}x{frames.size(first + 1)} px (height x width), but the "
                f"artifact reads {height}x{width} px or another size of that aspect ratio: crop them first"
            )

    def check_numbers(self, observation: dict[str, Tensor], key: str, size: int, steps: int, rows: int) -> None:
        """Refuse a state or noise that is missing or of the wrong shape."""
        if key not in observation:
            raise ValueError(f"{key} is missing, which the artifact reads")
        shape = list(observation[key].size())
        expected = [rows, size]
        if steps > 1 or key == "noise":
            expected = [rows, steps, size]
        if shape != expected:
            raise ValueError(f"{key} must have the shape {expected}, not {shape}")
