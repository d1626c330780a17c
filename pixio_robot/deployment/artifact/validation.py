"""Is every entry of an artifact's metadata what its table promises? As strict as settings are, without their library.

Numbers are finite in float32, in which a robot's loop computes: a limit beyond would be no limit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_LARGEST = 3.4e38  # of float32
_MOST = 1 << 20  # numbers of an action, pixels of a side, steps of a chunk: above all that there is


class _Rule(NamedTuple):
    """What a value must be, in words, and the test of it."""

    words: str
    holds: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) <= _LARGEST  # type: ignore[arg-type]


def _one_of(*words: str) -> _Rule:
    return _Rule(" or ".join(words), lambda value: isinstance(value, str) and value in words)


def _or_null(rule: _Rule) -> _Rule:
    return _Rule(f"{rule.words} or null", lambda value: value is None or rule.holds(value))


def _list_of(words: str, holds: Callable[[Any], bool]) -> _Rule:
    return _Rule(f"a list of {words}", lambda value: isinstance(value, list) and all(map(holds, value)))


_TEXT = _Rule("text", lambda value: isinstance(value, str) and 0 < len(value) <= 1000)
_COUNT = _Rule("a whole number of at least 1", lambda value: type(value) is int and 1 <= value <= _MOST)
_RATE = _Rule("a positive number of at most 10000", lambda value: _is_number(value) and 0 < value <= 10_000)
_MAP = _Rule("a mapping", lambda value: isinstance(value, dict))
_NAMES = _Rule(
    "a list of different names",
    lambda value: isinstance(value, list) and all(map(_TEXT.holds, value)) and len(set(value)) == len(value),
)
_NUMBERS = _list_of("finite numbers", _is_number)
_STEPS = _or_null(_list_of("finite numbers of at least 0", lambda value: _is_number(value) and value >= 0))
_DEVICES = _list_of("cpu and cuda", lambda value: value in ("cpu", "cuda"))

_EVERY = {
    "kind": _one_of("policy", "encoder"),
    "form": _one_of("torchscript", "pt2", "onnx"),
    "precision": _one_of("float32", "float16", "bfloat16", "int8"),
    "devices": _DEVICES,
    "observation_horizon": _COUNT,
    "executed_actions": _or_null(_COUNT),
    "sampling_steps": _or_null(_COUNT),
    "control_rate_hz": _or_null(_RATE),
    "normalisation": _MAP,
    "encoder": _MAP,
    "tasks": _or_null(_NAMES),
}
_CAMERA = {
    "key": _TEXT,
    "height": _COUNT,
    "width": _COUNT,
    "colour_order": _one_of("RGB", "BGR"),
    "frame_sizes": _one_of("same_aspect", "exact"),
}
_STATE = {"key": _one_of("observation.state"), "size": _COUNT, "names": _or_null(_NAMES)}
_ACTION = {
    "size": _COUNT,
    "names": _or_null(_NAMES),
    "space": _or_null(_TEXT),
    "minimum": _NUMBERS,
    "maximum": _NUMBERS,
    "limits_from": _one_of("environment", "demonstrations"),
    "largest_change": _STEPS,
    "largest_value": _STEPS,
}
_NOISE = {"key": _one_of("noise"), "shape": _list_of("sizes", _COUNT.holds)}
_LATER = ("largest_change", "largest_value")  # entries that older files lack
_TO_SIZE = ("names", "minimum", "maximum", *_LATER)


def fault_in(metadata: Mapping[str, Any]) -> str | None:
    """Return what is wrong with metadata that have all keys, as `<key> is <value>, expected …`; None for sound ones."""
    groups: list[tuple[str, object, Mapping[str, _Rule]]] = [("", metadata, _EVERY)]
    cameras = metadata["cameras"]
    if not isinstance(cameras, list):
        return _sentence("cameras", cameras, "a list of cameras")
    groups += [(f"cameras[{place}]", camera, _CAMERA) for place, camera in enumerate(cameras)]
    acts = metadata["kind"] == "policy"
    for key, rules in (("state", _STATE), ("action", _ACTION), ("noise", _NOISE)):
        if metadata[key] is not None or (acts and key == "action"):
            groups.append((key, metadata[key], rules))
    if acts:
        groups.append(("", metadata, {"action_horizon": _COUNT}))
    for path, group, rules in groups:
        fault = _fault_in_group(path, group, rules)
        if fault is not None:
            return fault
    keys = [camera["key"] for camera in cameras]
    if len(set(keys)) < len(keys):
        return _sentence("cameras", keys, "cameras of different keys")
    return _fault_between(metadata) if acts else None


def _fault_in_group(path: str, group: object, rules: Mapping[str, _Rule]) -> str | None:
    if not isinstance(group, dict):
        return _sentence(path, group, "a mapping")
    for name, rule in rules.items():
        value = group.get(name)
        if (name not in group and name not in _LATER) or not rule.holds(value):
            return _sentence(f"{path}.{name}".strip("."), value, rule.words)
    for name in _TO_SIZE:
        values = group.get(name)
        if name in rules and values is not None and len(values) != group["size"]:
            return _sentence(f"{path}.{name}", values, f"one entry for each of {group['size']} numbers")
    return None


def _fault_between(metadata: Mapping[str, Any]) -> str | None:
    """Compare entries of a policy that are sound one by one."""
    action, noise = metadata["action"], metadata["noise"]
    for place, (low, high) in enumerate(zip(action["minimum"], action["maximum"], strict=True)):
        if low > high:
            return _sentence(f"action.minimum[{place}]", low, f"at most action.maximum[{place}], {high}")
    if noise is not None and (len(noise["shape"]) != 2 or noise["shape"][1] != action["size"]):
        return _sentence("noise.shape", noise["shape"], f"[steps, {action['size']}]")
    return None


def _sentence(key: str, value: object, expected: str) -> str:
    shown = "missing" if value is None else repr(_shortened(value))
    return f"{key} is {shown[:80]}, expected {expected}"


def _shortened(value: object) -> object:
    return [*value[:4], ...] if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 4 else value
