"""Which arrays of robomimic's and diffusion policy's formats make which features of a store, and back.

Both formats have an array per sensor, named as its makers liked. In a store there are cameras, one
``observation.state`` and one ``action``. The rules:

* An array of (steps, height, width, 3), or with the channels first, is a camera. ``agentview_image`` and
  ``agentview_rgb`` are the camera ``agentview``; other names stay.
* The state is, of each robot in turn, ``robotN_eef_pos``, ``robotN_eef_quat``, ``robotN_eef_rot_axis_angle``,
  ``robotN_gripper_qpos`` and ``robotN_gripper_width``, as many as there are; where there is none, ``state``; else
  ``agent_pos``; else all other low-dimensional arrays, sorted by name.
* Low-dimensional values become float32.

The store's attribute ``source_arrays`` keeps what a feature was joined from, so that the way back splits it again, and
``source_left_out`` names the arrays that became nothing.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.demos.store.layout import Feature
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.images.preprocessing import fit_episode

_CAMERA, _STATE, _ACTION = "observation.images.", "observation.state", "action"
_ROBOT_STATES = ("eef_pos", "eef_quat", "eef_rot_axis_angle", "gripper_qpos", "gripper_width")
_AXES = {"eef_pos": "xyz", "eef_quat": "xyzw", "eef_rot_axis_angle": "xyz"}  # quaternions as robosuite orders them
_WHOLE_STATES = ("state", "agent_pos")
_IMAGE_SUFFIX = re.compile(r"_(image|rgb)$")


@dataclass(frozen=True)
class Source:
    """What a feature is made from.

    Attributes:
        parts: Name and shape of a step of each array, joined in this order.
        feature: What they become.
    """

    parts: tuple[tuple[str, tuple[int, ...]], ...]
    feature: Feature

    def resized(self, image_size: int | None) -> "Source":
        """Return the source of frames of so many pixels a side, where these are frames."""
        if image_size is None or not self.feature.is_image:
            return self
        return replace(self, feature=Feature((image_size, image_size, self.feature.shape[-1]), "uint8"))


Sources = dict[str, Source]


def guess_sources(path: Path, arrays: Mapping[str, Feature], action_names: Collection[str]) -> Sources:
    """Choose the arrays that become features, by the rules above.

    Args:
        path: Where they are from, for the messages.
        arrays: What a step of each array holds.
        action_names: The arrays of `arrays` that make the action, in order.

    Raises:
        UserError: There is no camera or nothing for a state.
    """
    sources: Sources = {}
    for name in sorted(arrays):
        frame_shape = _frame_shape(arrays[name].shape)
        if frame_shape is not None:
            camera = _IMAGE_SUFFIX.sub("", name)
            key = _CAMERA + (name if _CAMERA + camera in sources else camera)
            sources[key] = Source(((name, arrays[name].shape),), Feature(frame_shape, "uint8"))
    if not sources:
        raise UserError(
            f"{path} has no images, only {', '.join(sorted(arrays)) or 'nothing'}: an array of (steps, height, width, 3) "
            "is needed; render its observations with cameras first."
        )
    state_names = _state_names([name for name, array in arrays.items() if len(array.shape) < 3], action_names)
    if not state_names:
        raise UserError(f"{path} has no low-dimensional observation to make {_STATE} of: add one, such as agent_pos.")
    for key, names in ((_STATE, state_names), (_ACTION, list(action_names))):
        parts = tuple((name, arrays[name].shape) for name in names)
        width = sum(math.prod(shape) for _, shape in parts)
        sources[key] = Source(parts, Feature((width,), "float32"))
    return sources


def choose_sources(
    path: Path,
    extra: Mapping[str, Any],
    arrays: Mapping[str, Feature],
    action_names: Callable[[], Collection[str]],
    about_file: Mapping[str, Any],
) -> tuple[Sources, dict[str, Any]]:
    """Return what one of our exports left in its file, or else a guess, and the store's attributes that go with it.

    Args:
        path: Where the arrays are from, for the messages.
        extra: What an export left: a `transfer.Record` with the sources as ``arrays``; empty where others wrote the file.
        arrays: What a step of each array holds.
        action_names: Finds the arrays that make the action, where others wrote the file.
        about_file: More attributes, of a file that others wrote.

    Raises:
        UserError: See `guess_sources`.
    """
    if "arrays" in extra:
        return sources_from_json(extra["arrays"]), dict(extra.get("attributes", {}))
    sources = guess_sources(path, arrays, action_names())
    return sources, origin_attributes(sources, arrays) | dict(about_file)


def origin_attributes(sources: Sources, arrays: Collection[str]) -> dict[str, Any]:
    """Return the attributes that say which arrays made the features, and which were left out."""
    used = {name for source in sources.values() for name, _ in source.parts}
    return {
        "source_arrays": {key: source.parts for key, source in sources.items()},
        "source_left_out": sorted(set(arrays) - used),
        "names": {key: _names(source) for key, source in sources.items() if _has_names(source)},
    }


def _has_names(source: Source) -> bool:
    return not source.feature.is_image and source.parts[0][0] not in (*_WHOLE_STATES, "action", "actions")


def _names(source: Source) -> list[str]:
    """Name each number after its array: by axes where it is known to be a place or a rotation, else by its position."""
    names = []
    for name, shape in source.parts:
        size = math.prod(shape)
        axes = next((axes for end, axes in _AXES.items() if name.endswith(end) and len(axes) == size), range(size))
        names += [name] if size == 1 else [f"{name}.{axis}" for axis in axes]
    return names


def sources_of_store(store: DemoStore, action_name: str) -> Sources:
    """Name the arrays that a store's features become in a format whose action is called so."""
    remembered = store.attributes.get("source_arrays", {})
    sources: Sources = {}
    taken: set[str] = set()
    for key, feature in store.features.items():
        parts = tuple((name, tuple(shape)) for name, shape in remembered.get(key, ()))
        if feature.is_image and len(parts) == 1:
            parts = ((parts[0][0], feature.shape),)
        width = sum(math.prod(shape) for _, shape in parts)
        if key == _ACTION:
            parts = ((action_name, feature.shape),)
        elif not parts or width != math.prod(feature.shape) or taken & {name for name, _ in parts}:
            name = _default_name(key, feature)
            parts = ((key if name in taken else name, feature.shape),)
        taken |= {name for name, _ in parts}
        sources[key] = Source(parts, feature)
    return sources


def sources_to_json(sources: Sources) -> dict[str, Any]:
    """Return what `sources_from_json` reads."""
    return {key: asdict(source) for key, source in sources.items()}


def sources_from_json(saved: Mapping[str, Any]) -> Sources:
    """Read the sources that one of our exports left in its file."""
    return {
        key: Source(
            tuple((name, tuple(shape)) for name, shape in source["parts"]),
            Feature(tuple(source["feature"]["shape"]), source["feature"]["dtype"]),
        )
        for key, source in saved.items()
    }


def join(path: Path, sources: Sources, read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Make the features of an episode.

    Args:
        path: Where it is from, for the messages.
        sources: What to make of what; frames are resized to what the features say.
        read: Returns an array of the episode by its name, (steps, ...).

    Raises:
        UserError: Frames hold values that a byte does not.
    """
    episode = {}
    for key, source in sources.items():
        if source.feature.is_image:
            ((name, _),) = source.parts
            frames = _as_frames(path, name, read(name), source.feature.shape[-1])
            height, width = source.feature.shape[:2]
            episode[key] = fit_episode(frames, height if frames.shape[1:3] != (height, width) else None)
        else:
            values = [read(name) for name, _ in source.parts]
            flat = [part.reshape(len(part), -1).astype(source.feature.dtype) for part in values]
            episode[key] = np.concatenate(flat, axis=1).reshape(-1, *source.feature.shape)
    return episode


def split(source: Source, values: np.ndarray) -> dict[str, np.ndarray]:
    """Take a feature of an episode apart into the arrays that it is made from."""
    ends = np.cumsum([math.prod(shape) for _, shape in source.parts])[:-1]
    pieces = np.split(values.reshape(len(values), -1), ends, axis=1)
    return {name: piece.reshape(len(values), *shape) for (name, shape), piece in zip(source.parts, pieces, strict=True)}


def _frame_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return (height, width, 3) of an array of frames, None for any other."""
    if len(shape) != 3 or 3 not in (shape[0], shape[2]):
        return None
    return (shape[0], shape[1], 3) if shape[2] == 3 else (shape[1], shape[2], 3)


def _state_names(low_dim: Sequence[str], action_names: Collection[str]) -> list[str]:
    robots = sorted({int(match[1]) for name in low_dim if (match := re.match(r"robot(\d+)_", name))})
    of_robots = [f"robot{robot}_{part}" for robot in robots for part in _ROBOT_STATES]
    if found := [name for name in of_robots if name in low_dim]:
        return found
    for name in _WHOLE_STATES:
        if name in low_dim:
            return [name]
    return sorted(set(low_dim) - set(action_names))


def _default_name(key: str, feature: Feature) -> str:
    if not feature.is_image:
        return key.removeprefix("observation.")
    camera = key.removeprefix(_CAMERA).removeprefix("observation.")
    return camera if camera.endswith(("image", "rgb")) else f"{camera}_image"


def _as_frames(path: Path, name: str, values: np.ndarray, channels: int) -> np.ndarray:
    """Return frames as uint8 (steps, height, width, channels), having checked that nothing is lost."""
    if values.shape[-1] != channels:
        values = np.moveaxis(values, 1, -1)
    frames = np.ascontiguousarray(values)
    if frames.dtype == np.uint8:
        return frames
    with np.errstate(invalid="ignore"):  # what a NaN becomes is found out below
        rounded = frames.astype(np.uint8)
    if not np.array_equal(rounded, frames):
        raise UserError(
            f"{path} has frames {name} of {frames.dtype} from {frames.min():.6g} to {frames.max():.6g}, not whole "
            "numbers from 0 to 255: store them as uint8 first."
        )
    return rounded
