"""Settings: typed dataclasses that are checked when they are built, and sentences that say what is wrong with them.

    @settings
    class TrainerConfig:
        steps: Count = 2500
        \"\"\"Optimiser steps.\"\"\"

`TrainerConfig(steps=0)` raises `UserError`: "steps must be a whole number of at least 1, got 0." Nested settings may be given as
mappings, as a YAML file holds them; an error then names the whole path, `trainer.steps`. What a field accepts stands in its
type, what it is for in the sentence under it: messages, `--help` and configs/README.md are made of both.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeGuard,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import pydantic
import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BeforeValidator, ConfigDict, Strict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.storage.files import write_text

# Text that looks like a number, and true and false, are no numbers: hence Strict.
Whole = Annotated[int, Strict(), Ge(0)]
"""0, 1, 2, …"""
Count = Annotated[int, Strict(), Ge(1)]
"""1, 2, 3, …"""
Number = Annotated[float, Strict()]
"""Any finite number."""
Positive = Annotated[float, Strict(), Gt(0)]
NonNegative = Annotated[float, Strict(), Ge(0)]
Share = Annotated[float, Strict(), Ge(0), Le(1)]
"""A part of a whole, or a probability."""
Decay = Annotated[float, Strict(), Ge(0), Lt(1)]
"""A factor that makes smaller."""
Switch = Annotated[bool, Strict()]
Text = Annotated[str, MinLen(1)]


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("empty")
    return value


Place = Annotated[Path, BeforeValidator(_not_empty)]
"""A file or folder."""

_CHECKS = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


@overload
def settings[C](cls: type[C], /) -> type[C]: ...
@overload
def settings[C](*, kw_only: bool = False) -> Callable[[type[C]], type[C]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type | None = None, /, *, kw_only: bool = False) -> Any:
    """Make a class a frozen dataclass that refuses unknown names, wrong types and values out of range.

    `__post_init__` may raise `UserError` for what fields forbid each other.
    """
    if cls is None:
        return functools.partial(_checked, kw_only=kw_only)
    return _checked(cls, kw_only=kw_only)


def _checked(cls: type, kw_only: bool) -> type:
    made: Any = pydantic.dataclasses.dataclass(cls, frozen=True, kw_only=kw_only, config=_CHECKS)
    build = made.__init__

    @functools.wraps(build)
    def __init__(self: object, *values: object, **named: object) -> None:  # noqa: N807
        try:
            build(self, *values, **named)
        except ValidationError as error:
            raise UserError(_sentence(made, error)) from None

    made.__init__ = __init__
    return made


def is_settings(kind: object) -> TypeGuard[type]:
    """Tell a class made by `settings`."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind) and hasattr(kind, "__pydantic_fields__")


def plain(chosen: object) -> dict[str, Any]:
    """Return settings as plain values for YAML and JSON: paths as text, tuples as lists."""
    return TypeAdapter(type(chosen)).dump_python(chosen, mode="json")


def save(chosen: object, path: Path) -> None:
    """Write settings as YAML."""
    write_text(path, yaml.safe_dump(plain(chosen), sort_keys=False, allow_unicode=True))


def fields_of(kind: type) -> dict[str, FieldInfo]:
    """Return the fields of settings: type with metadata, default, and the sentence that explains each."""
    return kind.__pydantic_fields__  # pyright: ignore[reportAttributeAccessIssue]


def check_fields(kind: type, values: Mapping[str, Any], path: str, owner: str) -> None:
    """Check values for a dataclass that is not ours, as those of LeRobot, by the types of its fields.

    Args:
        kind: The dataclass.
        values: By its fields' names.
        path: Where the user writes them, for the message.
        owner: What has these fields, for the message.

    Raises:
        UserError: A name is unknown (the nearest is offered), or a value is of another type.
    """
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{owner} has no field {name!r}. {nearest_name(str(name), known)}")
        hint = _hints(kind)[name]
        if _is_plain(hint) and not _fits(hint, value):
            raise UserError(f"{path}.{name} must be {describe(hint)}, got {_shown(value)}.")


def _is_plain(hint: object) -> bool:
    parts = [part for part in get_args(hint) if part is not ...]
    if get_origin(hint) is Literal:
        return True
    return all(map(_is_plain, parts)) if parts else hint in (int, float, bool, str, list, dict, type(None))


def _fits(hint: Any, value: object) -> bool:  # noqa: ANN401 (TypeAdapter's)
    try:
        taken = TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError:
        return False
    # pydantic takes text for numbers and numbers for switches.
    return isinstance(taken, str) == isinstance(value, str) and isinstance(taken, bool) == isinstance(value, bool)


def explanation_of(kind: type, name: str) -> str | None:
    """Return the sentence under a field, which may stand in the settings that these extend."""
    bases = [base for base in kind.__mro__ if is_settings(base) and name in fields_of(base)]
    return next((fields_of(base)[name].description for base in bases if fields_of(base)[name].description), None)


def settings_in(annotation: object) -> list[type]:
    """Return the settings that a field may hold: one for a group, several for a choice among groups, none for a value."""
    if is_settings(annotation):
        return [annotation]
    origin = get_origin(annotation)
    if origin is Annotated:
        return settings_in(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for option in get_args(annotation) for kind in settings_in(option)]
    return []


class Found(NamedTuple):
    """What stands at a path of names, keys and positions in settings."""

    path: tuple[str | int, ...]
    """The path as a user writes it, as far as the settings know it."""
    annotation: object
    """The type there; `Any` where they leave it open."""
    holder: type
    """The innermost settings on the way."""


def look_up(kind: type, path: Iterable[str | int]) -> Found:
    """Follow a path from settings as far as it leads; pydantic's has the `kind` of one of several groups in it, too."""
    known: list[str | int] = []
    annotation: object = kind
    holder = kind
    for part in path:
        groups = settings_in(annotation)
        entry = None
        if not groups:
            entry = _entry(annotation, part)
        elif len(groups) > 1 and part in map(_tag, groups):
            annotation = holder = next(group for group in groups if _tag(group) == part)
            continue
        else:
            within = [group for group in groups if part in fields_of(group)]
            entry = _hints(within[0])[str(part)] if within else None
        if entry is None:
            break
        known.append(part)
        annotation = entry
        inner = settings_in(annotation)
        holder = inner[0] if inner else holder
    return Found(tuple(known), annotation, holder)


def _tag(group: type) -> object:
    """Return the `kind` by which one of several groups is chosen."""
    return fields_of(group)["kind"].default if "kind" in fields_of(group) else None


def _entry(annotation: object, part: str | int) -> object:
    """Return the type of an entry of a mapping, list or tuple; None where there is none."""
    for checked in _options(annotation)[0]:
        option = bare(checked)
        origin, arguments = get_origin(option), get_args(option)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return arguments[1] if part != "[key]" else None
        if origin is tuple and isinstance(part, int):
            return arguments[part] if part < len(arguments) else None
        if isinstance(origin, type) and isinstance(part, int) and arguments:
            return arguments[0]
    return Any if annotation is Any else None


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _options(annotation: object) -> tuple[list[Any], bool]:
    """Return the types that a union joins, and whether None is one of them."""
    if get_origin(annotation) in (Union, types.UnionType):
        options = [option for option in get_args(annotation) if option is not type(None)]
        return options, len(options) < len(get_args(annotation))
    return [annotation], False


def is_text(annotation: object) -> bool:
    """Tell whether a type takes text as it is typed: names, paths and choices."""
    options, _ = _options(annotation)
    return any(bare(option) in (str, Path) or get_origin(bare(option)) is Literal for option in options)


def bare(annotation: object) -> object:
    """Return a type without the checks that go with it."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def choices_in(annotation: object) -> list[str]:
    """Return the words that a type accepts; none where it is not a choice."""
    options, _ = _options(annotation)
    return [str(word) for option in options if get_origin(option) is Literal for word in get_args(option)]


def describe(annotation: object) -> str:
    """Say in words what a type accepts."""
    options, optional = _options(annotation)
    return _either([_describe_one(option) for option in options] + ["null"] * optional)


def _describe_one(annotation: object) -> str:
    bounds: Iterable[Any] = ()
    if get_origin(annotation) is Annotated:
        annotation, *bounds = get_args(annotation)
    if annotation is int or annotation is float:
        return ("a whole number" if annotation is int else "a number") + _range(bounds)
    if annotation in (bool, str, Path, Any):
        return {bool: "true or false", str: "text", Path: "a path", Any: "anything"}[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _either([str(word) for word in arguments])
    if origin is tuple and arguments[-1] is not ...:
        return f"a list of {len(arguments)}, each {describe(arguments[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping such as {{name: value}}, each value {describe(arguments[1])}"
    return f"a list such as [a,b], each entry {describe(arguments[0])}" if arguments else "a group of settings"


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _range(bounds: Iterable[Any]) -> str:
    limits = {type(bound): next(iter(dataclasses.asdict(bound).values())) for bound in bounds}
    if Ge in limits and Le in limits:
        return f" from {limits[Ge]} to {limits[Le]}"
    words = {Ge: "of at least", Gt: "above", Lt: "below", Le: "of at most"}
    said = [f"{word} {limits[kind]}" for kind, word in words.items() if kind in limits]
    return f" {' and '.join(said)}" if said else ""


def _sentence(kind: type, error: ValidationError) -> str:
    """Say what is wrong with the first wrong field."""
    # A misspelt name makes the right one missing: the misspelling is what is wrong.
    wrong = min(error.errors(include_url=False), key=lambda one: one["type"] != "unexpected_keyword_argument")
    cause = wrong.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return str(cause)
    found, value = look_up(kind, wrong["loc"]), wrong["input"]
    name = ".".join(str(part) for part in found.path)
    if wrong["type"] == "unexpected_keyword_argument":
        given = str(wrong["loc"][-1])
        return f"Unknown setting {f'{name}.{given}'.strip('.')!r}. {nearest_name(given, fields_of(found.holder))}"
    if wrong["type"].startswith("missing") and not isinstance(wrong["loc"][-1], int):
        return f"{name} must be given: add {name}=… to the command."
    choices = choices_in(found.annotation)
    if wrong["type"].startswith("union_tag"):
        name, value = f"{name}.kind", wrong.get("ctx", {}).get("tag", "")
        choices = [str(_tag(group)) for group in settings_in(found.annotation)]
    if choices and isinstance(value, str):
        return f"Unknown {name} {value!r}. {nearest_name(value, choices)}"
    return f"{name} must be {describe(found.annotation)}, got {_shown(value)}."


def _shown(value: object) -> str:
    """Show a value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)
