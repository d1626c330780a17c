"""What an artifact says of itself: `metadata.json` inside the file, schema 3. Needs neither torch nor numpy.

Every artifact, of whichever format, has all of these keys; null stands where something does not apply or is not known.

| key | meaning |
|---|---|
| `schema` | 3; a reader refuses what is newer than itself |
| `kind` | `policy` or `encoder` |
| `form` | the file's format: `torchscript`, `pt2` (torch.export) or `onnx` |
| `policy` | LeRobot's type of the policy, for example `pixio_act`; null for an encoder |
| `cameras` | list, in the policy's order: `key` (`observation.images.<camera>`), `height`, `width` (px, what the policy \
works at), `colour_order` (`RGB`), `frame_sizes` (`same_aspect`: any size whose aspect ratio is the same to the pixel; \
`exact`: this size alone) |
| `state` | `key` (`observation.state`), `size`, `names` (list or null); null for an encoder |
| `action` | `size`, `names` (list or null), `space` (control mode in words, among them `absolute`, `delta` or \
`velocity`; or null), `minimum`, `maximum` (lists of numbers, the limits to keep), `limits_from` (`environment` or \
`demonstrations`), `largest_change` and `largest_value` (lists or null: of each number in the demonstrations the largest \
change from one step to the next, and the largest absolute value); null for an encoder |
| `noise` | null, or of a policy that samples: `key` (`noise`), `shape` [horizon, action size]; standard normal: \
`pixio_robot.common.noise` has what evaluation gives it, by episode and chunk |
| `tasks` | null, or of a policy that is told which task to do: their sentences, which the input `task` numbers from 0 |
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
(B, O, height, width, 3) and (B, O, S). `noise` float32 (B, horizon, A) where `noise` is not null, and \
`task` int64 (B,) where `tasks` is not null. The answer: actions
(B, H, A) in raw units, or tokens (B, G + h·w, D).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pixio_robot.common.errors import UserError
from pixio_robot.deployment.artifact.validation import fault_in

SCHEMA_VERSION = 3

KEYS = frozenset(
    ("schema", "kind", "form", "policy", "cameras", "state", "action", "noise", "tasks", "observation_horizon")
    + ("action_horizon", "executed_actions", "control_rate_hz", "sampling_steps", "normalisation", "encoder", "tokens")
    + ("precision", "devices", "env", "versions", "parity", "digest")
)


def no_artifact(path: object) -> UserError:
    """Return the error for a file that is something else."""
    return UserError(f"{path} is not a pixio-robot artifact; make one with scripts/export.py.")


def check_metadata(metadata: object, path: object) -> dict[str, Any]:
    """Return the metadata of a file if this version can read it.

    Raises:
        UserError: It is no metadata, of an older or newer schema, lacks keys, or an entry is not what the table says.
    """
    if not isinstance(metadata, dict) or not isinstance(metadata.get("schema"), int):
        raise no_artifact(path)
    schema = metadata["schema"]
    if schema != SCHEMA_VERSION:
        age, advice = ("", "update pixio-robot") if schema > SCHEMA_VERSION else ("the old ", "export it again")
        raise UserError(f"{path} has {age}schema {schema}, this version reads {SCHEMA_VERSION}: {advice}.")
    missing = sorted(KEYS - metadata.keys())
    if missing:
        raise UserError(f"The metadata of {path} lacks {', '.join(missing)}: it may have been edited; export it again.")
    fault = fault_in(metadata)
    if fault is not None:
        raise UserError(f"The metadata of {path} cannot be right ({fault}): export it again.")
    return metadata


def check_size(camera: Mapping[str, Any], height: int, width: int) -> None:
    """Check that frames of a size, in pixels, may go into an entry of `cameras`.

    Raises:
        UserError: They may not.
    """
    expected = camera["height"], camera["width"]
    exact = camera["frame_sizes"] == "exact"
    if (height, width) != expected if exact else not same_aspect(height, width, *expected):
        raise UserError(
            f"{camera['key']} brings frames of {height}×{width} px, but the artifact reads {expected[0]}×{expected[1]} "
            f"px{'' if exact else ' or another size of that aspect ratio'}: crop them first."
        )


def same_aspect(height: int, width: int, expected_height: int, expected_width: int) -> bool:
    """Tell whether two sizes in pixels have one aspect ratio, but for the rounding to whole pixels."""
    largest = max(height, width)
    return min(height, width) > 0 and abs(width * expected_height - height * expected_width) <= largest


def sealed(metadata: Mapping[str, Any], contents_hash: str) -> dict[str, Any]:
    """Return metadata with this schema and the digest of it and of everything else in the file."""
    described = {**metadata, "schema": SCHEMA_VERSION}
    return {**described, "digest": digest(described, contents_hash)}


def digest(metadata: Mapping[str, Any], contents_hash: str) -> str:
    """Return the sha256 over the metadata (without its own digest) and a hash of everything else in the file."""
    described = {key: value for key, value in metadata.items() if key != "digest"}
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{contents_hash}\n{text}".encode()).hexdigest()
