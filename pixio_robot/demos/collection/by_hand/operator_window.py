"""The window of someone who demonstrates by hand: what the cameras see, and the keys that are held. Alone knows pygame."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from pixio_robot.common.errors import UserError

_CAMERA_HEIGHT = 384
_LINE_HEIGHT = 20
_MARGIN = 8
# SDL falls back on these where there is nothing to look at.
_BLIND_DRIVERS = ("offscreen", "dummy", "evdev")


@dataclass(frozen=True)
class Keys:
    """The keyboard at one instant, in pygame's names of keys, such as ``up``, ``w``, ``space``, ``left shift``.

    Attributes:
        held: Keys that are down, or were since the instant before.
        pressed: Keys that went down since the instant before, in order.
        closed: Whether the window was closed.
    """

    held: frozenset[str]
    pressed: tuple[str, ...] = ()
    closed: bool = False


class OperatorWindow:
    """A window with camera frames side by side and lines of text below them.

    Args:
        title: What stands in the window's bar.

    Raises:
        UserError: There is no screen, or pygame is not installed.
    """

    def __init__(self, title: str) -> None:
        self._pygame = _import_pygame()
        try:
            self._pygame.display.init()
            driver = self._pygame.display.get_driver()
        except self._pygame.error:
            driver = None
        if driver is None or (driver in _BLIND_DRIVERS and os.environ.get("SDL_VIDEODRIVER") != driver):
            self._pygame.quit()
            raise UserError(
                "Recording by hand opens a window, and this machine has no screen (neither DISPLAY nor WAYLAND_DISPLAY "
                "leads to one): run it on a desktop, or collect with expert=scripted."
            )
        self._pygame.font.init()
        self._font = self._pygame.font.Font(None, _LINE_HEIGHT)
        self._pygame.display.set_caption(title)
        self._surface = None
        self._clock = self._pygame.time.Clock()
        self._held: set[str] = set()

    def show(self, frames: Mapping[str, np.ndarray], lines: Sequence[str]) -> None:
        """Draw camera frames, uint8 (H, W, 3), and lines of text; the first call decides the window's size."""
        pygame = self._pygame
        pictures = []
        for frame in frames.values():
            height, width = frame.shape[:2]
            picture = pygame.surfarray.make_surface(frame.swapaxes(0, 1))
            pictures.append(pygame.transform.smoothscale(picture, (width * _CAMERA_HEIGHT // height, _CAMERA_HEIGHT)))
        if self._surface is None:
            width = sum(picture.get_width() for picture in pictures)
            self._surface = pygame.display.set_mode(
                (width, _CAMERA_HEIGHT + _LINE_HEIGHT * len(lines) + 2 * _MARGIN), pygame.SHOWN
            )
        self._surface.fill((24, 24, 24))
        left = 0
        for picture in pictures:
            self._surface.blit(picture, (left, 0))
            left += picture.get_width()
        for number, line in enumerate(lines):
            text = self._font.render(line, True, (235, 235, 235))
            self._surface.blit(text, (_MARGIN, _CAMERA_HEIGHT + _MARGIN + number * _LINE_HEIGHT))
        pygame.display.flip()

    def keys(self, rate: float) -> Keys:
        """Wait until it is time for the next of `rate` instants a second, and return what the keyboard did meanwhile."""
        pygame = self._pygame
        self._clock.tick(rate)
        pressed, closed = [], False
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                closed = True
            elif event.type == pygame.KEYDOWN:
                pressed.append(pygame.key.name(event.key))
                self._held.add(pressed[-1])
            elif event.type == pygame.KEYUP:
                self._held.discard(pygame.key.name(event.key))
            elif event.type == pygame.WINDOWFOCUSLOST:  # whoever types elsewhere shall not move the robot
                self._held.clear()
        return Keys(frozenset(self._held).union(pressed), tuple(pressed), closed)

    def close(self) -> None:
        """Close the window."""
        self._pygame.quit()


def _import_pygame() -> ModuleType:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    # SDL would show even plain pixels through OpenGL, and end the process where MuJoCo's context is current.
    os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its use of pkg_resources
            import pygame
    except ImportError as error:
        raise UserError(
            f"Recording by hand needs pygame, which cannot be imported ({error}): pip install 'pixio-robot[teleoperation]'."
        ) from error
    return pygame
