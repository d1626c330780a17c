"""Point clouds of pairs: pictures of what was told beside the truth, and files for a viewer."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pixio_robot.common.storage.files import write_bytes
from pixio_robot.reports.charts import save_figure

_SHOWN = 85  # per cent of the true points that a picture has room for; far walls would make the rest small
_BACKGROUND = "#8d939c"  # white tables and black grippers both show on it


def write_ply(path: Path, points_P3: np.ndarray, colours_P3: np.ndarray) -> None:
    """Write coloured points as a binary PLY file.

    Args:
        path: The file.
        points_P3: In metres.
        colours_P3: uint8 RGB.
    """
    kinds = [(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")]
    table = np.empty(len(points_P3), kinds)
    for number, (name, _) in enumerate(kinds):
        table[name] = points_P3[:, number] if number < 3 else colours_P3[:, number - 3]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in kinds] + ["end_header\n"]
    write_bytes(path, "\n".join(header).encode() + table.tobytes())


def draw_clouds(
    path: Path,
    views: tuple[np.ndarray, np.ndarray],
    told: tuple[np.ndarray, np.ndarray],
    true: tuple[np.ndarray, np.ndarray],
    cameras: tuple[np.ndarray, np.ndarray],
) -> None:
    """Draw two views and their points, told and true, in view 0's frame from above and behind its camera, as PNG.

    Args:
        path: The file.
        views: Images, uint8 (H, W, 3).
        told: Points (P, 3) in metres, and colours (P, 3) uint8.
        true: The same of the truth.
        cameras: Place (3,) of the second camera as told and as it is.
    """
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    grid = figure.add_gridspec(1, 4, width_ratios=(1, 1, 1.5, 1.5))
    for number, (view, title) in enumerate(zip(views, ("view 0", "view 1"), strict=True)):
        axes = figure.add_subplot(grid[number])
        axes.imshow(view)
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    size = float(np.percentile(np.linalg.norm(true[0], axis=1), _SHOWN)) if len(true[0]) else 1.0
    for number, ((points, colours), camera, title) in enumerate(
        zip((told, true), cameras, ("predicted", "true"), strict=True)
    ):
        shown = np.linalg.norm(points, axis=1) <= size
        axes: Any = figure.add_subplot(grid[2 + number], projection="3d", facecolor=_BACKGROUND)
        x, y, z = points[shown].T / size
        axes.scatter(x, z, -y, c=colours[shown] / 255, s=5, linewidths=0, depthshade=False)
        for place, colour in ((np.zeros(3), "tab:red"), (camera / size, "tab:blue")):
            axes.scatter(place[0], place[2], -place[1], color=colour, s=24, marker="^")
        axes.set(xlim=(-0.4, 0.4), ylim=(0.1, 0.9), zlim=(-0.4, 0.4))
        axes.set_title(title, fontsize=9)
        axes.view_init(elev=20, azim=-75)
        axes.set_axis_off()
    save_figure(figure, path)
