"""What stands on a command line: Hydra's flags with their values, and KEY=VALUE, of which text means what is typed."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_origin

from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import bare, is_text, look_up

_FLAGS = {
    **dict.fromkeys(("--help", "-h"), "--help"),
    **dict.fromkeys(("--multirun", "-m"), "--multirun"),
    **dict.fromkeys(("--run", "-r"), "--run"),
    **dict.fromkeys(("--hydra-help", "--version", "--resolve"), ""),
    **dict.fromkeys(("--shell-completion", "-sc"), ""),
}
_FLAGS_WITH_VALUE = {
    **dict.fromkeys(("--cfg", "-c"), "--cfg"),
    **dict.fromkeys(("--package", "-p"), "--package"),
    **dict.fromkeys(("--config-dir", "-cd"), "--config-dir"),
    **dict.fromkeys(("--info", "-i"), "--info"),
}
_ALONE = ("--run", "--multirun", "--cfg", "--info", "--shell-completion", "-sc")  # what Hydra does only one of
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")  # what --info may be followed by
_SWEEP = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(.*\)$")


@dataclass(frozen=True)
class CommandLine:
    """A command line, taken apart."""

    flags: tuple[str, ...] = ()
    """Hydra's flags, each followed by its value if it has one."""
    overrides: tuple[str, ...] = ()
    """KEY=VALUE, +KEY=VALUE and ~KEY, written so that Hydra reads what the user means."""
    config_dir: str | None = None
    """Of --config-dir: a folder of further choices."""
    named: frozenset[str] = frozenset()
    """Long names of the flags."""

    @property
    def multirun(self) -> bool:
        """Whether commas stand for several runs."""
        return "--multirun" in self.named

    @property
    def runs(self) -> bool:
        """Whether the job itself is asked for, and not something about it."""
        return not self.named - {"--multirun", "--run", "--config-dir"}


def parse(arguments: Sequence[str], settings: type | None, positional: Sequence[str] = ()) -> CommandLine:
    """Take a command line apart.

    Args:
        arguments: What follows the command's name.
        settings: The job's settings, whose types say which values are text.
        positional: Keys that arguments without a ``=`` are the values of, in this order.

    Raises:
        UserError: A flag is unknown or lacks its value, or an argument is neither flag nor KEY=VALUE.
    """
    flags: list[str] = []
    named: set[str] = set()
    overrides: list[str] = []
    config_dir = None
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-") or argument == "-":
            overrides.append(argument)
            continue
        flag, equals, value = argument.partition("=")
        if flag in _FLAGS_WITH_VALUE:
            flag = _FLAGS_WITH_VALUE[flag]
            if not equals and rest and (flag != "--info" or rest[0] in _INFO):
                value = rest.pop(0)
            if not value and flag != "--info":
                raise UserError(f"{argument} needs a value behind it.")
            flags += [flag, value] if value else [flag]
            named.add(flag)
            config_dir = value if flag == "--config-dir" else config_dir
        elif argument in _FLAGS:
            flags.append(argument)
            named.add(_FLAGS[argument] or argument)
        else:
            raise UserError(f"Unknown option {argument!r}: {_advice(flag.lstrip('-'), value, rest)}")
    if len(meant := [flag for flag in _ALONE if flag in named]) > 1:
        raise UserError(f"{' and '.join(meant)} do not go together: give one of them.")
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"There is no folder {config_dir}: --config-dir takes one with further choices.")
    line = CommandLine(tuple(flags), (), config_dir, frozenset(named))
    written = [_written(one, settings, line.multirun) for one in _with_keys(overrides, positional)]
    return dataclasses.replace(line, overrides=tuple(written))


def _advice(name: str, value: str, rest: Sequence[str]) -> str:
    if not value and rest and not rest[0].startswith("-") and "=" not in rest[0]:
        value = rest[0]
    return f"say {name}={value or '…'}, without dashes, or --help for all settings."


def _with_keys(arguments: Sequence[str], positional: Sequence[str]) -> list[str]:
    """Put the keys before arguments that stand alone."""
    keys = [key for key in positional if not any(text.startswith(f"{key}=") for text in arguments)]
    named = []
    for argument in arguments:
        if "=" in argument or argument.startswith("~"):
            named.append(argument)
        elif keys:
            named.append(f"{keys.pop(0)}={quoted(argument)}")
        elif positional:
            wanted = " and ".join(f"a {key}" for key in positional)
            raise UserError(f"{argument!r} is one path too many: give {wanted}, then KEY=VALUE.")
        else:
            raise UserError(f"{argument!r} is no setting: say KEY=VALUE, or --help for all settings.")
    return named


def quoted(text: str) -> str:
    """Quote as Hydra reads it: backslashes count only before a quote."""
    if "${" in text:
        raise UserError(f"{text!r} has '${{' in it, which Hydra takes for a reference: rename it or give a link to it.")
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", r"\'"), text) + "'"


def _written(override: str, settings: type | None, multirun: bool) -> str:
    """Quote the value of an override whose setting takes text, unless it is Hydra's language on purpose."""
    key, equals, value = override.partition("=")
    if settings is None or not equals:
        return override
    path = tuple(key.lstrip("+").split("."))
    found = look_up(settings, path)
    if len(found.path) < len(path):
        return override
    annotation, holder = found.annotation, look_up(settings, path[:-1]).annotation
    if len(path) > 1 and get_origin(bare(holder)) is dict and key[0] not in "+~":
        key = f"++{key}"  # what no file in configs/ names, such as a field of a policy's config: whoever takes it knows it
        override = f"{key}={value}"
    if multirun and ("," in value or _SWEEP.match(value)):
        return override
    entries = [get_args(option)[0] for option in (annotation, *get_args(annotation)) if get_origin(option) is tuple]
    if any(is_text(entry) for entry in entries) and re.fullmatch(r"\[[^\[\]{}'\"]+\]", value):
        return f"{key}=[{','.join(_as_typed(entry.strip()) for entry in value[1:-1].split(','))}]"
    return f"{key}={_as_typed(value)}" if is_text(annotation) else override


def _as_typed(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    is_reference = "${" in value
    return value if not value or value == "null" or is_quoted or is_reference else quoted(value)
