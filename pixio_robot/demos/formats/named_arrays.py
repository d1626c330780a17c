"""Which arrays of robomimic's and diffusion policy's formats make which features of a store, and back.

Both formats have an array per sensor, named as its makers liked. In a store there are cameras, one
``observation.state`` and one ``action``. The rules:

* An array of (steps, height, width, channels), or with the channels first, is a camera, and so are bytes of (steps, height,
  width). Greys become RGB; a fourth channel is left out. ``agentview_image`` and ``agentview_rgb`` are the camera
  ``agentview``; other names stay. Depth and segmentation are left out.
* Frames of floats from 0 to 1, or of more than 8 bits, are scaled to a byte.
* The state is, of each robot in turn, ``robotN_eef_pos``, ``robotN_eef_quat``, ``robotN_eef_rot_axis_angle``,
  ``robotN_gripper_qpos`` and ``robotN_gripper_width``, as many as there are; where there is none, ``state``; else
  ``agent_pos``; else all other low-dimensional arrays, sorted by name.
* Low-dimensional values become float32.

The store's attribute ``source_arrays`` keeps what a feature was joined from, so that the way back splits it again.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.demos.formats.array_frames import BYTE, as_frames, white_of
from pixio_robot.demos.formats.transfer import explains_unreadable
from pixio_robot.demos.store.layout import Feature
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.images.preprocessing import fit_episode

_CAMERA, _STATE, _ACTION = "observation.images.", "observation.state", "action"
_ROBOT_STATES = ("eef_pos", "eef_quat", "eef_rot_axis_angle", "gripper_qpos", "gripper_width")
_AXES = {"eef_pos": "xyz", "eef_quat": "xyzw", "eef_rot_axis_angle": "xyz"}  # quaternions as robosuite orders them
_WHOLE_STATES = ("state", "agent_pos")
_CHANNELS, _LEAST_SIDE = (1, 3, 4), 8
_IMAGE_SUFFIX = re.compile(r"_(image|rgb)$")


@dataclass(frozen=True)
class Source:
    """What a feature is made from.

    Attributes:
        parts: Name and shape of a step of each array, joined in this order.
        feature: What they become.
        white: Of frames, the value that becomes 255.
    """

    parts: tuple[tuple[str, tuple[int, ...]], ...]
    feature: Feature
    white: int = BYTE

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
    arrays = {name: array for name, array in arrays.items() if 0 not in array.shape}
    for name in action_names:
        if name not in arrays:
            raise UserError(f"{path} has {name} that are no numbers of every step: give actions as floats.")
    sources: Sources = {}
    for name in sorted(arrays):
        size = _frame_size(path, name, arrays[name]) if name not in action_names else None
        if size is not None:
            camera = _IMAGE_SUFFIX.sub("", name.rpartition("/")[2])
            key = _CAMERA + (name.replace("/", "_") if _CAMERA + camera in sources else camera)
            sources[key] = Source(((name, arrays[name].shape),), Feature((*size, 3), "uint8"))
    if not sources:
        found = [f"{name} of {array.shape}" for name, array in sorted(arrays.items())]
        raise UserError(
            f"{path} has no images, only {', '.join(found) or 'nothing'}: an array of (steps, height, width, 3) is needed; "
            "render its observations with cameras first."
        )
    frames = {name for source in sources.values() for name, _ in source.parts}
    low_dim = [name for name, array in arrays.items() if len(array.shape) < 3 and name not in frames]
    state_names = _state_names([name for name in low_dim if not _is_no_picture(name)], action_names)
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
    read: Callable[[str], Iterable[np.ndarray]],
) -> tuple[Sources, dict[str, Any], list[str]]:
    """Return what one of our exports left in its file, or else a guess, and what goes with it.

    Args:
        path: Where the arrays are from, for the messages.
        extra: What an export left: a `transfer.Record` with the sources as ``arrays``; empty where others wrote the file.
        arrays: What a step of each array holds.
        action_names: Finds the arrays that make the action, where others wrote the file.
        read: Reads an array, episode after episode.

    Returns:
        The sources; the store's attributes that say where they are from; what is left out, shrunk or assumed, in words.

    Raises:
        UserError: See `guess_sources` and `white_of`.
    """
    if "arrays" in extra:
        with explains_unreadable(path, "what an export left in it"):
            return sources_from_json(extra["arrays"]), dict(extra.get("attributes", {})), []
    sources = guess_sources(path, arrays, action_names())
    for key, source in sources.items():
        if source.feature.is_image:
            ((name, _),) = source.parts
            sources[key] = replace(source, white=white_of(path, name, arrays[name].dtype, read(name)))
    return sources, _origin_attributes(sources), _given_up(sources, arrays)


def _origin_attributes(sources: Sources) -> dict[str, Any]:
    """Return the attributes that say which arrays made the features."""
    return {
        "source_arrays": {key: source.parts for key, source in sources.items()},
        "names": {key: _names(source) for key, source in sources.items() if _has_names(source)},
    }


def _given_up(sources: Sources, arrays: Mapping[str, Feature]) -> list[str]:
    """Say what is not as it was in the arrays."""
    used = {name for source in sources.values() for name, _ in source.parts}
    words = [f"{name}{' (no colours)' * _is_no_picture(name)}" for name in sorted(set(arrays) - used)]
    for source in sources.values():
        for name, shape in source.parts:
            dtype = arrays[name].dtype
            if not source.feature.is_image:
                if np.dtype(dtype).kind != "f":
                    words.append(f"the dtype {dtype} of {name}: float32 instead")
                if len(shape) > 1:
                    words.append(f"the shape {shape} of {name}: {math.prod(shape)} numbers behind each other")
                continue
            if source.white != BYTE:
                words.append(f"the range of {name}: 0 to {source.white} became 0 to 255")
            if 4 in (shape[0], shape[-1]) and shape[-1] != 3:
                words.append(f"the fourth channel of {name}")
            if len(shape) == 2:
                words.append(f"{name}, bytes of {shape}: taken as a grey camera")
    return words


def _has_names(source: Source) -> bool:
    return not source.feature.is_image and source.parts[0][0].rpartition("/")[2] not in (
        *_WHOLE_STATES,
        "action",
        "actions",
    )


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


def join(path: Path, sources: Sources, number: int, read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Make the features of an episode.

    Args:
        path: Where it is from, for the messages.
        sources: What to make of what; frames are resized to what the features say.
        number: The episode, for the messages.
        read: Returns an array of the episode by its name, (steps, ...).

    Raises:
        UserError: Frames hold values that do not belong to their range.
    """
    episode = {}
    for key, source in sources.items():
        if source.feature.is_image:
            ((name, shape),) = source.parts
            size = _frame_size(path, name, Feature(shape, "uint8"))
            assert size is not None
            frames = as_frames(path, name, number, read(name), size, source.white)
            height, width = source.feature.shape[:2]
            episode[key] = fit_episode(frames, height if frames.shape[1:3] != (height, width) else None)
        else:
            values = [read(name) for name, _ in source.parts]
            with np.errstate(over="ignore"):  # what is too large is found where numbers are checked
                flat = [part.reshape(len(part), -1).astype(source.feature.dtype) for part in values]
            episode[key] = np.concatenate(flat, axis=1).reshape(-1, *source.feature.shape)
    return episode


def split(source: Source, values: np.ndarray) -> dict[str, np.ndarray]:
    """Take a feature of an episode apart into the arrays that it is made from."""
    ends = np.cumsum([math.prod(shape) for _, shape in source.parts])[:-1]
    pieces = np.split(values.reshape(len(values), -1), ends, axis=1)
    return {name: piece.reshape(len(values), *shape) for (name, shape), piece in zip(source.parts, pieces, strict=True)}


def _frame_size(path: Path, name: str, array: Feature) -> tuple[int, int] | None:
    """Return height and width of an array of frames, None for any other.

    Raises:
        UserError: Where its channels are cannot be told.
    """
    shape = array.shape
    if _is_no_picture(name) and 3 not in (shape[:1] + shape[-1:]):
        return None
    if len(shape) == 2 and array.dtype == "uint8" and min(shape) >= _LEAST_SIDE:
        return shape[0], shape[1]
    if len(shape) != 3:
        return None
    sizes = [size for size in (_size_with(shape, 2), _size_with(shape, 0)) if size is not None]
    clear = [size for size in sizes if min(size) >= _LEAST_SIDE]
    # Small ones are frames if they are bytes of three channels: a rotation is three by three.
    sizes = [size for size in sizes if array.dtype == "uint8" and 3 in (shape[0], shape[2])]
    if not clear and shape[0] == shape[2] == 3 and sizes:
        raise UserError(
            f"{path} has an array {name} of {shape} a step, in which the channels may be the first or the last: leave it out, or "
            "give it frames of another size."
        )
    return (clear or sizes or [None])[0]


def _size_with(shape: tuple[int, ...], channels: int) -> tuple[int, int] | None:
    """Return height and width, if there may be channels at a place of a shape."""
    height, width = (side for place, side in enumerate(shape) if place != channels)
    return (height, width) if shape[channels] in _CHANNELS else None


def _is_no_picture(name: str) -> bool:
    return any(word in name.lower() for word in ("depth", "segmentation"))


def _state_names(low_dim: Sequence[str], action_names: Collection[str]) -> list[str]:
    by_base = {name.rpartition("/")[2]: name for name in low_dim}
    robots = sorted({int(match[1]) for name in by_base if (match := re.match(r"robot(\d+)_", name))})
    of_robots = [f"robot{robot}_{part}" for robot in robots for part in _ROBOT_STATES]
    if found := [by_base[name] for name in of_robots if name in by_base]:
        return found
    for name in _WHOLE_STATES:
        if name in by_base:
            return [by_base[name]]
    return sorted(set(low_dim) - set(action_names))


def _default_name(key: str, feature: Feature) -> str:
    if not feature.is_image:
        return key.removeprefix("observation.")
    camera = key.removeprefix(_CAMERA).removeprefix("observation.")
    return camera if camera.endswith(("image", "rgb")) else f"{camera}_image"
