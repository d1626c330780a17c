"""A screen that nobody sees, and keys that are pressed on it."""

import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest


@pytest.fixture(name="display")
def virtual_display() -> Iterator[str]:
    """A virtual screen."""
    assert shutil.which("Xvfb") is not None, "run apt-get install xvfb"
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    yield f":{server.stdout.readline().strip()}"
    server.terminate()
    server.wait()


class XKeys:
    """Presses keys of an X server as a keyboard would (its XTEST extension)."""

    def __init__(self, display: str) -> None:
        from Xlib.display import Display

        self._display = Display(display)

    def window_is_there(self) -> bool:
        windows = self._display.screen().root.query_tree().children
        return any(window.get_geometry().width > 100 and window.get_attributes().map_state for window in windows)

    def hold(self, name: str, seconds: float) -> None:
        self.press(name, True)
        time.sleep(seconds)
        self.press(name, False)
        time.sleep(0.5)

    def press(self, name: str, down: bool) -> None:
        from Xlib import XK, X
        from Xlib.ext import xtest

        code = self._display.keysym_to_keycode(XK.string_to_keysym(name))
        xtest.fake_input(self._display, X.KeyPress if down else X.KeyRelease, code)
        self._display.sync()
