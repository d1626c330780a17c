"""Looks through a demonstration store, an episode at a time: what it holds, and what looks wrong.

Low-dimensional signals stay in memory, as they do for training windows; frames are read in blocks and dropped.
Letters of shape suffixes: T steps, D dimensions of a signal.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.demos.inspection.findings import (
    DAMAGED,
    FROZEN_CAMERA,
    IDLE,
    JUMP,
    KINDS,
    NON_FINITE,
    Finding,
    check_attributes,
    check_clock,
    is_clock,
    place,
)
from pixio_robot.demos.inspection.signal_checks import (
    SignalScale,
    find_jumps,
    find_repeats,
    find_still,
    is_moving,
    measure_scale,
)
from pixio_robot.demos.inspection.units import units_of
from pixio_robot.demos.store.layout import Feature, data_name, read_attributes
from pixio_robot.demos.store.locations import Location, as_location, size_of
from pixio_robot.demos.store.store import DemoStore

_FROZEN_SECONDS, _MIN_FROZEN_STEPS = 0.5, 5
_IDLE_SECONDS = 1.0
_FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class Inspection:
    """What is in a store.

    Attributes:
        path: The store.
        features: What a step holds.
        lengths: Steps of each episode.
        tasks: Number of episodes of each task.
        outcomes_known: Episodes of which it is known whether they succeeded.
        successes: Those that did.
        fps: Control rate in Hz.
        attributes: Whatever else was recorded of the store as a whole.
        bytes_on_disk: Size of all its files.
        names: What the numbers of a key are, where the store says it.
        units: In which unit each number of a key is; see `units_of`.
        signals: Values of each low-dimensional key, (T, D), NaN where they cannot be read.
        findings: The worst kind first, then by episode.
    """

    path: Location
    features: dict[str, Feature]
    lengths: list[int]
    tasks: dict[str, int]
    outcomes_known: int
    successes: int
    fps: float
    attributes: dict[str, Any]
    bytes_on_disk: int
    names: dict[str, list[str]]
    units: dict[str, list[str]]
    signals: dict[str, np.ndarray]
    findings: list[Finding]


def open_damaged(path: str | Path) -> DemoStore:
    """Open a store of which some data may be missing: reading that is an error, opening the store is not.

    Raises:
        UserError: There is no demonstration store, or what it says of its episodes cannot be read.
    """
    location = as_location(path)
    return DemoStore(location, read_attributes(location))


def inspect_store(
    store: DemoStore, *, frozen_steps: int | None = None, advance: Callable[[], None] = lambda: None
) -> Inspection:
    """Read everything in a store once.

    A camera is frozen where its frames are bit-identical for `frozen_steps` steps while the state moves; an episode is
    idle where neither action nor state moves for a second; see `SignalScale` for what moving and jumping is.

    Args:
        store: What to look through.
        frozen_steps: At least 2; half a second, and at least 5 steps, by default.
        advance: Called after each episode.

    Raises:
        UserError: `frozen_steps` is too small.
    """
    if frozen_steps is not None and (not isinstance(frozen_steps, int) or frozen_steps < 2):
        raise UserError(f"frozen_steps={frozen_steps!r}: a frame repeats from 2 steps on; give 2 or more, or null.")
    fps = store.fps
    findings = check_attributes(store.attributes, fps)
    signals = {}
    for key, feature in store.features.items():
        if _is_signal(feature):
            signals[key], damages = _read_signal(store, key)
            findings += damages
    unreadable = {(finding.key, finding.episode) for finding in findings if finding.kind == DAMAGED}
    for key in filter(is_clock, signals):
        findings += check_clock(key, signals[key], store.episode_ends, fps)
    checks = _EpisodeChecks(store, signals, unreadable, fps, frozen_steps)
    for episode in range(store.num_episodes):
        findings += checks.check(episode)
        advance()
    outcomes = store.episode_success
    return Inspection(
        path=store.path,
        features=dict(store.features),
        lengths=np.diff(store.episode_ends, prepend=0).tolist(),
        tasks=dict(Counter(store.episode_tasks).most_common()),
        outcomes_known=int((outcomes >= 0).sum()),
        successes=int((outcomes == 1).sum()),
        fps=fps,
        attributes={
            name: value for name, value in store.attributes.items() if name not in ("fps", "tasks", "features")
        },
        bytes_on_disk=size_of(store.path),
        names=store.names,
        units=units_of(store.attributes, store.names, {key: values.shape[1] for key, values in signals.items()}),
        signals=signals,
        findings=sorted(findings, key=lambda finding: (KINDS.index(finding.kind), finding.episode or 0)),
    )


def read_whole(store: DemoStore, key: str, start: int, stop: int) -> np.ndarray:
    """Read steps of the store, all of them.

    Raises:
        UserError: They are damaged on disk, or not there.
    """
    rows = store.read(key, start, stop)
    if len(rows) < stop - start:
        raise UserError(
            f"The demonstration store {store.path} is damaged: {data_name(key)} ends before step {stop}; restore it from a "
            f"copy or record it again."
        )
    return rows


class _EpisodeChecks:
    """Looks for what is wrong in one episode after the other."""

    def __init__(
        self,
        store: DemoStore,
        signals: dict[str, np.ndarray],
        unreadable: set[tuple[str | None, int | None]],
        fps: float,
        frozen_steps: int | None,
    ) -> None:
        self._store = store
        self._signals = signals
        self._unreadable = unreadable
        self._fps = fps
        self._frozen_steps = frozen_steps or max(_MIN_FROZEN_STEPS, round(_FROZEN_SECONDS * fps))
        self._idle_steps = max(2, round(_IDLE_SECONDS * fps))
        self._scales: dict[str, SignalScale] = {
            key: measure_scale(values_TD, store.episode_ends) for key, values_TD in signals.items() if not is_clock(key)
        }
        self._states = [key for key in self._scales if key.startswith("observation.")]
        self._actions = [key for key in self._scales if key == "action"]

    def check(self, episode: int) -> Iterator[Finding]:
        steps = self._store.episode_range(episode)
        values = {key: signal_TD[steps.start : steps.stop] for key, signal_TD in self._signals.items()}
        for key, values_TD in values.items():
            if (key, episode) not in self._unreadable:
                yield from _check_finite(key, episode, values_TD, 0)
        yield from self._check_jumps(episode, values)
        yield from self._check_idle(episode, values)
        for key, feature in self._store.features.items():
            if key not in self._signals:
                check = self._check_camera if feature.is_image else self._check_array
                try:
                    yield from check(key, episode, values)
                except UserError as error:
                    yield _damage(self._store, key, episode, error)

    def _check_jumps(self, episode: int, values: dict[str, np.ndarray]) -> Iterator[Finding]:
        for key in self._states:
            for jump in find_jumps(values[key], self._scales[key]):
                usual = self._scales[key].usual_change_D[jump.dimension]
                sentence = (
                    f"{place(episode, jump.first, jump.last)}: {key} jumps by {jump.change:.4g} in "
                    f"{self._dimension(key, jump.dimension)}, where 99 of 100 steps change it by less than {usual:.2g}."
                )
                yield Finding(JUMP, sentence, key, episode, (jump.first, jump.last))

    def _dimension(self, key: str, dimension: int) -> str:
        name = f" ({self._store.names[key][dimension]})" if key in self._store.names else ""
        return f"dimension {dimension}{name}"

    def _check_idle(self, episode: int, values: dict[str, np.ndarray]) -> Iterator[Finding]:
        keys = self._actions + self._states
        if not keys:
            return
        tolerance_D = np.concatenate([self._scales[key].still_within for key in keys])
        values_TD = np.concatenate([values[key] for key in keys], axis=1)
        what = " and ".join(["action"] * bool(self._actions) + ["state"] * bool(self._states))
        for start, stop in find_still(values_TD, tolerance_D, self._idle_steps):
            seconds = (stop - start) / self._fps
            sentence = f"{place(episode, start, stop - 1)}: {what} stand still for {seconds:.1f} s."
            yield Finding(IDLE, sentence, None, episode, (start, stop - 1))

    def _check_camera(self, key: str, episode: int, values: dict[str, np.ndarray]) -> Iterator[Finding]:
        blocks = (block for _, block in self._blocks(key, episode))
        for start, stop in find_repeats(blocks, self._frozen_steps):
            movers = self._states or self._actions
            if any(is_moving(values[mover][start:stop], self._scales[mover]) for mover in movers):
                sentence = (
                    f"{place(episode, start, stop - 1)}: {key} shows the same frame {stop - start} times "
                    f"while the {'state' if self._states else 'action'} moves."
                )
                yield Finding(FROZEN_CAMERA, sentence, key, episode, (start, stop - 1))

    def _check_array(self, key: str, episode: int, _: dict[str, np.ndarray]) -> Iterator[Finding]:
        for first, block in self._blocks(key, episode):
            found = list(_check_finite(key, episode, block, first))
            if found:
                yield found[0]
                return

    def _blocks(self, key: str, episode: int) -> Iterator[tuple[int, np.ndarray]]:
        steps = self._store.episode_range(episode)
        for start in range(steps.start, steps.stop, _FRAMES_AT_ONCE):
            yield start - steps.start, read_whole(self._store, key, start, min(start + _FRAMES_AT_ONCE, steps.stop))


def _is_signal(feature: Feature) -> bool:
    return len(feature.shape) <= 1  # anything larger, such as depth, is read in blocks like frames


def _read_signal(store: DemoStore, key: str) -> tuple[np.ndarray, list[Finding]]:
    dtype = np.result_type(store.features[key].dtype, np.float32)
    signal_TD = np.full((store.num_steps, math.prod(store.features[key].shape)), np.nan, dtype)
    damages = []
    for episode in range(store.num_episodes):
        steps = store.episode_range(episode)
        try:
            rows = read_whole(store, key, steps.start, steps.stop)
            signal_TD[steps.start : steps.stop] = rows.reshape(len(rows), -1)
        except UserError as error:
            damages.append(_damage(store, key, episode, error))
    return signal_TD, damages


def _damage(store: DemoStore, key: str, episode: int, error: UserError) -> Finding:
    last = len(store.episode_range(episode)) - 1
    sentence = f"{place(episode, 0, last)}: not all of {key} can be read. {error}"
    return Finding(DAMAGED, sentence, key, episode, (0, last))


def _check_finite(key: str, episode: int, values: np.ndarray, first: int) -> Iterator[Finding]:
    is_bad_T = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if is_bad_T.any():
        bad = np.flatnonzero(is_bad_T) + first
        count = f" in {len(bad)} steps" if len(bad) > 1 else ""
        sentence = f"{place(episode, bad[0], bad[-1])}: {key} is not finite{count}."
        yield Finding(NON_FINITE, sentence, key, episode, (int(bad[0]), int(bad[-1])))
