"""Simulated scenes: heads are tested on other seeds of the families that they were trained on, and on other families."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.settings import plain
from pixio_robot.downstream.dense.config import DenseScenes
from pixio_robot.downstream.dense.data.sets import DenseData, DenseSet, DenseSource, Kind
from pixio_robot.downstream.scenes import Scenes, SceneSet, Simulator, scenes

HELD_OUT = "families"


class SimulatedScenes(DenseSource):
    """Rendered when first opened, and kept."""

    name, title = "scenes", "simulated scenes"
    depth_range = (0.05, 10.0)  # metres; what lies beyond is sky

    def __init__(self, kind: Kind, settings: DenseScenes, simulator: Simulator, folder: Path) -> None:
        """Remember what to render.

        Args:
            kind: Which truth is read.
            settings: Families, seeds and numbers of frames.
            simulator: Who renders them.
            folder: Where rendered sets are kept.
        """
        self.kind, self.classes = kind, simulator.class_names
        self.tests = (("seeds", ""), *([(HELD_OUT, "new families")] if settings.held_out_families else []))
        self._settings, self._simulator, self._folder = settings, simulator, folder

    def identity(self) -> dict[str, Any]:
        """Return the settings."""
        return {"scenes": plain(self._settings)}

    def check(self, crop: int) -> None:
        """Check names and sizes; see `DenseSource.check`."""
        chosen = self._settings
        for name in (*chosen.families, *chosen.held_out_families):
            if name not in self._simulator.families:
                raise UserError(f"Unknown scene family {name!r}. {nearest_name(name, self._simulator.families)}")
        if crop > chosen.image_size:
            raise UserError(
                f"Crops of {crop} px are larger than the scenes, which have {chosen.image_size} px: set a smaller dense.crop or "
                "a larger dense.scenes.image_size."
            )

    def open(self, console: Console) -> DenseData:
        """Render what is missing; see `DenseSource.open`."""
        chosen = self._settings
        sets = {
            "training": SceneSet(chosen.families, chosen.frames, chosen.image_size, chosen.seed),
            "seeds": SceneSet(chosen.families, chosen.test_frames, chosen.image_size, chosen.test_seed),
        }
        if chosen.held_out_families:
            sets[HELD_OUT] = SceneSet(chosen.held_out_families, chosen.test_frames, chosen.image_size, chosen.test_seed)
        opened = {
            name: self._as_set(wanted, scenes(wanted, self._simulator, self._folder, console))
            for name, wanted in sets.items()
        }
        return DenseData(opened.pop("training"), opened)

    def _as_set(self, wanted: SceneSet, rendered: Scenes) -> DenseSet:
        truth = rendered.depth_NHW if self.kind == "depth" else rendered.segmentation_NHW
        names = [f"{wanted.families[int(family)]}/{number}" for number, family in enumerate(rendered.family_N)]
        key = hashlib.blake2b(json.dumps(asdict(wanted)).encode(), digest_size=6).hexdigest()
        return DenseSet(
            names,
            lambda number: np.array(rendered.frames_NHWC[number]),
            lambda number: np.array(truth[number]),
            wanted.image_size,
            key,
            np.asarray(rendered.group_N),
        )
