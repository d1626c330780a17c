"""Progress where there is no terminal: lines with count, rate, time left and note."""

import io
import re
import time

from pytest import importorskip
from rich.console import Console

from pixio_robot.common.progress import phase_progress


def test_a_line_now_and_then_where_there_is_no_terminal() -> None:
    console = Console(file=io.StringIO(), width=80)
    with phase_progress(console, first_line=0.02) as progress:
        task = progress.add_task("training", total=8, note="loss 0.5")
        for _ in range(4):
            progress.advance(task)
            time.sleep(0.03)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert re.fullmatch(r"training [0-4]/8, (\S+/s, )?0:00:0\d so far, (0:00:0\d left, )?loss 0.5", lines[0])
    assert any("left" in line for line in lines[:-1])


IN_A_CELL = """
import sys, time
sys.modules["ipywidgets"] = None  # with which rich draws its bar
from rich.console import Console
from pixio_robot.common.progress import phase_progress

with phase_progress(Console(), first_line=0.1) as progress:
    task = progress.add_task("training", total=8, note="loss 0.5")
    for _ in range(4):
        progress.advance(task)
        time.sleep(0.1)
"""


def test_a_notebook_that_can_draw_no_bar_gets_lines() -> None:
    kernels = importorskip("jupyter_client.manager")  # of ipykernel, a dependency for development
    manager, client = kernels.start_new_kernel(kernel_name="python3")
    shown = []
    try:
        answer = client.execute_interactive(IN_A_CELL, timeout=60, output_hook=shown.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert answer["content"]["status"] == "ok", answer["content"]
    lines = [message["content"]["data"]["text/plain"] for message in shown if message["msg_type"] == "display_data"]
    assert lines and re.fullmatch(
        r"training [1-4]/8, (\S+/s, )?0:00:0\d so far, (0:00:0\d left, )?loss 0.5\n", lines[0]
    )


def test_a_terminal_and_a_quiet_console_get_no_lines() -> None:
    for console in (Console(file=io.StringIO(), force_terminal=True), Console(file=io.StringIO(), quiet=True)):
        with phase_progress(console, first_line=0.01) as progress:
            progress.add_task("training", total=8, note="loss 0.5")
            time.sleep(0.05)
        assert "so far" not in console.file.getvalue()  # type: ignore[attr-defined]
