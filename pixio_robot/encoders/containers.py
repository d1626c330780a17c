"""Weights in the containers that training code leaves them in: nested dicts, moving averages, wrappers' prefixes."""

import re
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError

# Of several copies of a network, what training code itself evaluates.
_AVERAGED = re.compile(r"ema|teacher|average|target", re.IGNORECASE)
_RAW = re.compile(r"student|online", re.IGNORECASE)
# Modules that wrap others and add their name before every key.
_WRAPPERS = re.compile(r"^(module|_orig_mod|model|backbone|encoder|network|net|teacher|student|state_dict)\.")
_DEEPEST = 8
_SHOWN = 8


class Found(NamedTuple):
    """The weights of a network inside of what a file holds."""

    tensors: dict[str, Tensor]
    """By the names they have without wrappers."""
    place: str
    """The keys and prefixes around them, joined by dots; empty where there are none."""
    passed_over: tuple[str, ...]
    """Places with as many weights of the same names, which were not taken."""


class _Place(NamedTuple):
    tensors: dict[str, Tensor]
    path: str
    prefix: str

    @property
    def name(self) -> str:
        return f"{self.path}.{self.prefix}".strip(".")


def find_weights(content: Mapping[str, Any], expected: AbstractSet[str], name: Callable[[str], str] = str) -> Found:
    """Return the weights of a network from a nested mapping: those under the keys and prefix with most of its names.

    `{"teacher": {"module.backbone.norm.weight": …}}` and `{"state_dict": {"model.norm.weight": …}, "optimizer": …}` both give
    `norm.weight`. Where several places have as many, the moving average or teacher is taken, then the outermost.

    Args:
        content: What a file holds: tensors, mappings of them, and anything else, which is ignored.
        expected: Names of the network's weights.
        name: What gives a key of the file the network's name for it.
    """
    containers = list(_containers(content, ""))
    matches: list[tuple[int, _Place]] = []
    for tensors, path in containers:
        names: dict[str, set[str]] = {}
        for key in tensors:
            parts = key.split(".")
            for depth in range(min(len(parts), _DEEPEST)):
                known = name(".".join(parts[depth:]))
                if known in expected:
                    names.setdefault("".join(f"{part}." for part in parts[:depth]), set()).add(known)
        matches += [(len(known), _Place(tensors, path, prefix)) for prefix, known in names.items()]
    if not matches:  # a layout that only timm's filter for the network knows, if any
        tensors, path = max(containers, key=lambda one: len(one[0]), default=({}, ""))
        return Found(*_without_wrappers(tensors, path), ())
    most = max(count for count, _ in matches)
    chosen, *others = sorted((place for count, place in matches if count == most), key=_preference)
    here = [key for key in chosen.tensors if key.startswith(chosen.prefix)]
    under = {key.removeprefix(chosen.prefix): chosen.tensors[key] for key in here}
    return Found(under, chosen.name, tuple(place.name for place in others))


def _containers(content: Mapping[Any, Any], path: str, depth: int = 0) -> Iterator[tuple[dict[str, Tensor], str]]:
    """Find every mapping that holds tensors, with the keys that lead to it."""
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield tensors, path
    for key, value in content.items():
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _containers(value, f"{path}.{key}".strip("."), depth + 1)


def _preference(place: _Place) -> tuple[int, int, str]:
    averaged, raw = _AVERAGED.search(place.name), _RAW.search(place.name)
    return (0 if averaged else 2 if raw else 1, len(place.name), place.name)


def _without_wrappers(tensors: dict[str, Tensor], path: str) -> tuple[dict[str, Tensor], str]:
    """Strip the wrappers that all keys share, however many stand before each other."""
    place = path
    while tensors and (first := _WRAPPERS.match(next(iter(tensors)))) and all(k.startswith(first[0]) for k in tensors):
        tensors = {key.removeprefix(first[0]): value for key, value in tensors.items()}
        place = f"{place}.{first[1]}".strip(".")
    return tensors, place


def top_level(content: Mapping[Any, Any]) -> str:
    """Name the outermost keys of what a file holds, those of a flat state dict by their first part."""
    names = list(dict.fromkeys(str(key).partition(".")[0] for key in content))
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def check_floats(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: object) -> None:
    """Refuse values in place of a network's floats that would only look like them, or that are not there.

    Args:
        weights: Tensors by name.
        expected: The network's own.
        where: The file, for the message.

    Raises:
        UserError: They are whole numbers, quantised, sparse, complex, of 8 bits, or a shape without values.
    """
    for key, value in weights.items():
        is_plain = value.layout is torch.strided and not value.is_quantized and not value.is_meta
        is_known = not value.is_complex() and not (value.is_floating_point() and value.itemsize == 1)
        is_float = value.is_floating_point() or key not in expected or not expected[key].is_floating_point()
        if not (is_plain and is_known and is_float):
            what = "a shape without values" if value.is_meta else f"{str(value.dtype).removeprefix('torch.')}"
            what += " (sparse)" if value.layout is not torch.strided else ""
            raise UserError(
                f"{where}: {key} is {what}, where floats of 16 to 64 bits should be: give the weights as they were before they "
                "were quantised or packed."
            )


def check_finite(weights: Mapping[str, Tensor], where: object) -> None:
    """Refuse weights that are not numbers.

    Args:
        weights: Tensors by name.
        where: The file, for the message.

    Raises:
        UserError: A tensor holds NaN or infinity; the message names the first and says how many there are.
    """
    wrong = [
        key for key, value in weights.items() if value.is_floating_point() and not _as_used(value).isfinite().all()
    ]
    if wrong:
        values = _as_used(weights[wrong[0]])
        bad = int((~torch.isfinite(values)).sum())
        others = f", and {len(wrong) - 1} other tensors hold such values" if len(wrong) > 1 else ""
        raise UserError(
            f"{where}: {bad} of {values.numel()} values of {wrong[0]} are not finite{others}; the training that wrote them "
            f"diverged, or the file is damaged: give an earlier checkpoint."
        )


def _as_used(values: Tensor) -> Tensor:
    """Return values as a network holds them: doubles may be too large for it."""
    return values.float() if values.dtype is torch.float64 else values
