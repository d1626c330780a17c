"""Linear probes as a downstream task: one fit for each split of the same scenes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.progress import phase_progress
from pixio_robot.common.settings import plain
from pixio_robot.downstream.probes.config import ProbesProtocol
from pixio_robot.downstream.probes.features import ProbeFeatures, check_probed, probe_tokens
from pixio_robot.downstream.probes.scenes import ProbeScenes, split_groups
from pixio_robot.downstream.probes.tasks import ProbeResult, probe
from pixio_robot.downstream.scenes import SceneSet, Simulator, scenes
from pixio_robot.downstream.task import CellResult, Metric, build_encoder
from pixio_robot.encoders import EncoderConfig

GUESS = "guess"
_METRICS = (
    Metric("object_position_cm", "object position", "cm"),
    Metric("gripper_position_cm", "gripper position", "cm"),
    Metric("gripper_orientation_deg", "gripper orientation", "°"),
    Metric("depth_delta1", "depth δ1", "%", 100, higher_is_better=True),
    Metric("segmentation_miou", "segmentation mIoU", "%", 100, higher_is_better=True),
)


class ProbesTask:
    """What linear maps read out of frozen tokens: positions, orientation, depth and classes."""

    name = "probes-scenes"
    group = "probes"
    title = "Linear probes on simulated scenes"
    metrics: Sequence[Metric] = _METRICS
    baselines: Sequence[str] = (GUESS,)

    def __init__(self, protocol: ProbesProtocol, simulator: Simulator, folder: Path) -> None:
        """Probe on scenes of a simulator, which are kept in a folder.

        Raises:
            UserError: A scene family is unknown.
        """
        for family in protocol.families:
            if family not in simulator.families:
                raise UserError(f"Unknown scene family {family!r}. {nearest_name(family, simulator.families)}")
        self._protocol, self._simulator, self._folder = protocol, simulator, folder
        self._scenes: ProbeScenes | None = None

    def identity(self) -> dict[str, Any]:
        """Return the protocol."""
        return plain(self._protocol)

    def check(self, encoder: EncoderConfig) -> None:
        """See `check_probed`."""
        check_probed(build_encoder(encoder), self._protocol.image_size)

    def measure(self, encoder: EncoderConfig | str, folder: Path, console: Console) -> CellResult:
        """Fit and test all probes on every split."""
        del folder  # a cell takes a minute: it is measured whole or not at all
        scenes, protocol = self._labelled(console), self._protocol
        with phase_progress(console) as progress:
            frames = 0 if isinstance(encoder, str) else len(scenes.frames_NHWC)
            bar = progress.add_task("probes", total=frames + len(protocol.seeds), note="")
            features: ProbeFeatures | None = None
            if isinstance(encoder, EncoderConfig):
                tokens = probe_tokens(build_encoder(encoder), scenes.frames_NHWC, lambda n: progress.advance(bar, n))
                features = ProbeFeatures(tokens, protocol.pose_readout)
            results: list[ProbeResult] = []
            for seed in protocol.seeds:
                results.append(probe(features, scenes, split_groups(scenes.group_N, seed)))
                progress.advance(bar)
        return CellResult({name: [getattr(one, name) for one in results] for name in ProbeResult._fields})

    def _labelled(self, console: Console) -> ProbeScenes:
        if self._scenes is None:
            protocol = self._protocol
            wanted = SceneSet(protocol.families, protocol.frames, protocol.image_size, protocol.scene_seed)
            rendered = scenes(wanted, self._simulator, self._folder, console)
            self._scenes = ProbeScenes.of(rendered, self._simulator.class_names)
        return self._scenes
