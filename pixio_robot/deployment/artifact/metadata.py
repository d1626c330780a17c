"""What an artifact says of itself: `metadata.json` inside the file, schema 2. Needs neither torch nor numpy.

Every artifact, of whichever form, has all of these keys; null stands where something does not apply or is not known.

| key | meaning |
|---|---|
| `schema` | 2; a reader refuses what is newer than itself |
| `kind` | `policy` or `encoder` |
| `form` | `torchscript`, `pt2` (torch.export) or `onnx` |
| `policy` | LeRobot's type of the policy, for example `pixio_act`; null for an encoder |
| `cameras` | list, in the policy's order: `key` (`observation.images.<camera>`), `height`, `width` (px, what the policy \
works at), `colour_order` (`RGB`), `frame_sizes` (`same_aspect`: any size whose aspect ratio is the same to the pixel; \
`exact`: this size alone) |
| `state` | `key` (`observation.state`), `size`, `names` (list or null); null for an encoder |
| `action` | `size`, `names` (list or null), `space` (control mode, or null), `minimum`, `maximum` (lists of numbers, the \
limits to keep), `limits_from` (`environment` or `demonstrations`); null for an encoder |
| `noise` | null, or of a policy that samples: `key` (`noise`), `shape` [horizon, action size]; see `chunk_noise` |
| `observation_horizon` | O: observation steps that the policy reads; 1 for an encoder |
| `action_horizon` | H: actions in the chunk it returns, the first for the present step; null for an encoder |
| `executed_actions` | actions of a chunk that were executed in training's evaluation before the next one |
| `control_rate_hz` | steps per second of the demonstrations, or null |
| `sampling_steps` | DDIM steps of a diffusion policy, or null |
| `normalisation` | by key: `mode`, `offset`, `scale`, `shift`; normalised = (x − offset) / scale + shift |
| `encoder` | `name` and `weights_hash` of the vision encoder |
| `tokens` | encoders: `global` (G), `grid` [h, w], `width` (D); null for a policy |
| `precision` | `float32`, `float16`, `bfloat16` or `int8`, of the vision encoder; the rest is float32 |
| `devices` | kinds of device that it runs on, for example [`cpu`, `cuda`] |
| `env` | the simulated task that it was trained in, or null |
| `versions` | software that it was trained and exported with |
| `parity` | `difference` from the eager path (`verification.difference_between`), and `observations` compared |
| `digest` | sha256 over the metadata and everything else in the file; it finds damage and edits, not forgers |

The call: a dictionary of tensors. `observation.images.<camera>` uint8 (B, height, width, 3) as the camera gives them,
`observation.state` float32 (B, S) in raw units; with O > 1 each has an axis of steps after B, oldest first:
(B, O, height, width, 3) and (B, O, S). `noise` float32 (B, horizon, A) where `noise` is not null. The answer: actions
(B, H, A) in raw units, or tokens (B, G + h·w, D).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixio_robot.common.errors import UserError

SCHEMA_VERSION = 2

_KEYS = frozenset(
    ("schema", "kind", "form", "policy", "cameras", "state", "action", "noise", "observation_horizon")
    + ("action_horizon", "executed_actions", "control_rate_hz", "sampling_steps", "normalisation", "encoder", "tokens")
    + ("precision", "devices", "env", "versions", "parity", "digest")
)


_CAMERA_KEYS = {"key": str, "height": int, "width": int, "colour_order": str, "frame_sizes": str}
_STATE_KEYS = {"key": str, "size": int, "names": list | None}
_ACTION_KEYS = {"size": int, "names": list | None, "space": str | None, "minimum": list, "maximum": list}


@dataclass(frozen=True)
class CameraSource:
    """What a robot's camera delivers, as far as its owner knows."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    colour_order: str = "RGB"
    """`RGB`, or `BGR` as OpenCV reads frames."""


def check_sources(metadata: Mapping[str, Any], cameras: Mapping[str, CameraSource], state_size: int | None) -> None:
    """Check before the first motion that a robot offers what an artifact reads.

    Args:
        metadata: Of the artifact.
        cameras: What each camera delivers, by the artifact's keys (`observation.images.<camera>`); others may be there.
        state_size: Length of the robot's state; None where it has none.

    Raises:
        UserError: A camera is missing, or gives another colour order or aspect ratio; the state has another length.
    """
    for camera in metadata["cameras"]:
        key = camera["key"]
        if key not in cameras:
            raise UserError(
                f"The artifact reads {key}, but the robot offers {', '.join(sorted(cameras)) or 'no camera'}: connect "
                f"that camera or rename one."
            )
        source = cameras[key]
        if source.colour_order != camera["colour_order"]:
            raise UserError(
                f"{key} delivers {source.colour_order}, but the artifact was trained on {camera['colour_order']}: "
                f"reverse the channels before the call."
            )
        if not size_fits(camera, source.height, source.width):
            raise UserError(wrong_size(camera, source.height, source.width))
    state = metadata["state"]
    if state is not None and state_size != state["size"]:
        raise UserError(
            f"{state['key']} has {state_size or 'no'} numbers, but the artifact reads {state['size']}"
            f"{': ' + ', '.join(state['names']) if state['names'] else ''}; give the state it was trained on."
        )


def size_fits(camera: Mapping[str, Any], height: int, width: int) -> bool:
    """Tell whether frames of this size, in pixels, may go into an entry of `cameras`."""
    if camera["frame_sizes"] == "exact":
        return (height, width) == (camera["height"], camera["width"])
    return same_aspect(height, width, camera["height"], camera["width"])


def same_aspect(height: int, width: int, expected_height: int, expected_width: int) -> bool:
    """Tell whether two sizes in pixels have one aspect ratio, but for the rounding to whole pixels."""
    largest = max(height, width)
    return min(height, width) > 0 and abs(width * expected_height - height * expected_width) <= largest


def wrong_size(camera: Mapping[str, Any], height: int, width: int) -> str:
    """Say why frames of this size are refused."""
    expected = f"{camera['height']}×{camera['width']} px"
    expected += "" if camera["frame_sizes"] == "exact" else " or another size of that aspect ratio"
    return f"{camera['key']} brings frames of {height}×{width} px, but the artifact reads {expected}: crop them first."


def require_file(path: Path) -> None:
    """Check that there is a file.

    Raises:
        UserError: There is none.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}; scripts/export_torchscript.py makes artifacts.")


def check_metadata(metadata: object, path: object) -> dict[str, Any]:
    """Return the metadata of a file if this version can read it.

    Raises:
        UserError: It is no metadata, of an older or newer schema, lacks keys, or describes no robot.
    """
    if not isinstance(metadata, dict) or not isinstance(metadata.get("schema"), int):
        raise UserError(f"{path} is no pixio-robot artifact; make one with scripts/export_torchscript.py.")
    schema = metadata["schema"]
    if schema > SCHEMA_VERSION:
        raise UserError(f"{path} has schema {schema}, this version reads {SCHEMA_VERSION}: update pixio-robot.")
    if schema < SCHEMA_VERSION:
        raise UserError(f"{path} has the old schema {schema}, this version reads {SCHEMA_VERSION}: export it again.")
    missing = sorted(_KEYS - metadata.keys())
    if missing:
        raise UserError(f"The metadata of {path} lacks {', '.join(missing)}: the file was edited; export it again.")
    broken = _broken(metadata)
    if broken is not None:
        raise UserError(f"The metadata of {path} say of {broken} what cannot be: export it again.")
    return metadata


def _broken(metadata: Mapping[str, Any]) -> str | None:
    """Return the first key whose value a robot could not be run with; a server's metadata come without a digest."""
    cameras, state, action = (metadata[key] for key in ("cameras", "state", "action"))
    acts = metadata["kind"] == "policy"
    horizons = ("observation_horizon", "action_horizon") if acts else ("observation_horizon",)
    wrong = [key for key in horizons if type(metadata[key]) is not int or metadata[key] < 1]
    if not isinstance(cameras, list) or not all(_has(camera, _CAMERA_KEYS) for camera in cameras):
        wrong.append("cameras")
    if state is not None and not _has(state, _STATE_KEYS):
        wrong.append("state")
    if acts and not (_has(action, _ACTION_KEYS) and len(action["minimum"]) == len(action["maximum"]) == action["size"]):
        wrong.append("action")
    return wrong[0] if wrong else None


def _has(described: object, entries: Mapping[str, Any]) -> bool:
    return isinstance(described, dict) and all(
        key in described and isinstance(described[key], kind) for key, kind in entries.items()
    )


def check_digest(metadata: Mapping[str, Any], contents_hash: str, path: object) -> None:
    """Check that nothing in a file has changed since its export.

    Raises:
        UserError: Something has.
    """
    if metadata["digest"] != digest(metadata, contents_hash):
        raise UserError(f"{path} was damaged or edited since its export (its digest does not match): export it again.")


def digest(metadata: Mapping[str, Any], contents_hash: str) -> str:
    """Return the sha256 over the metadata (without its own digest) and a hash of everything else in the file."""
    described = {key: value for key, value in metadata.items() if key != "digest"}
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{contents_hash}\n{text}".encode()).hexdigest()
