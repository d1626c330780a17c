"""What every Hydra script shares: where configs are, and clear words for a wrong choice or key.

This is the one module of the package that knows Hydra.
"""

import atexit
import functools
import gc
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pixio_robot.common.errors import UserError, exits_on_user_error, nearest_name

CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "configs"


def entry_point(
    config_name: str, positional: Sequence[str] = ()
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a script's `main(cfg)` a Hydra entry point that answers a user's mistakes in one sentence.

    Args:
        config_name: The file in `configs/` to compose.
        positional: Keys that arguments without a ``=`` are the values of, in this order: paths, taken as they are.
    """

    def decorate(main: Callable[[DictConfig], None]) -> Callable[[], None]:
        @exits_on_user_error
        def run() -> None:
            # Else the end of the process takes a second of looking for cycles among all that torch brought.
            atexit.register(gc.freeze)
            sys.argv[1:] = _named(sys.argv[1:], positional)
            overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
            check_overrides(config_name, overrides)
            hydra_main = hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=config_name)
            hydra_main(exits_on_user_error(_resolved(main)))()

        return functools.update_wrapper(run, main)

    return decorate


def _named(arguments: list[str], positional: Sequence[str]) -> list[str]:
    if not positional:
        return arguments
    keys = [key for key in positional if not any(text.startswith(f"{key}=") for text in arguments)]
    named = []
    for argument in arguments:
        if "=" in argument or argument.startswith("-"):
            named.append(argument)
        elif keys:
            named.append(f"{keys.pop(0)}={_quoted(argument)}")
        else:
            wanted = " and ".join(f"a {key}" for key in positional)
            raise UserError(f"{argument!r} is one path too many: give {wanted}, then KEY=VALUE.")
    return named


def _quoted(path: str) -> str:
    """Quote as Hydra reads it: backslashes count only before a quote."""
    if "${" in path:
        raise UserError(f"{path!r} has '${{' in it, which Hydra takes for a reference: rename it or give a link to it.")
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", r"\'"), path) + "'"


def check_overrides(config_name: str, overrides: list[str]) -> None:
    """Check choices and keys of command-line overrides before Hydra meets them.

    Raises:
        UserError: A group choice or a key is unknown (the nearest valid one is offered), a mandatory value is
            missing, or an override cannot be parsed.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UserError(f"Cannot read the command line: {str(error).splitlines()[0]}") from error
    first_choices = []
    for override in parsed:
        key = override.get_key_element().lstrip("+~")
        values = list(override.sweep_string_iterator()) if override.is_sweep_override() else None
        group = CONFIG_FOLDER / key
        if group.is_dir():
            choices = [path.stem for path in group.glob("*.yaml")]
            for choice in values or [str(override.value())]:
                if choice not in choices:
                    raise UserError(f"Unknown {key} {choice!r}. {nearest_name(choice, choices)}")
        first_choices.append(f"{override.get_key_element()}={values[0]}" if values else override.input_line)
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        lines = [str(line) for line in first_choices]
        try:
            hydra.compose(config_name, lines)
        except (HydraException, OmegaConfBaseException):
            _name_the_wrong_override(config_name, parsed, lines)


def given_fields(cfg: DictConfig, group: str, instead: str) -> dict[str, Any]:
    """Return the fields of a group that the command line of the running script sets one by one.

    Args:
        cfg: The composed config.
        group: A config group, for example `policy`.
        instead: The key that makes a choice of the whole group, which is refused then.

    Raises:
        UserError: The command line chooses the group as a whole.
    """
    given: dict[str, Any] = {}
    fields: Any = OmegaConf.to_container(cfg)
    for override in OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task)):
        key = override.get_key_element().lstrip("+~")
        if key == group:
            raise UserError(
                f"{override.input_line} has no effect with {instead}, which brings its own {group}: leave it out, or "
                f"change single fields ({group}.NAME=…)."
            )
        if key.startswith(f"{group}."):
            name = key.removeprefix(f"{group}.").partition(".")[0]
            given[name] = fields[group][name]
    return given


def given_settings(cfg: DictConfig, *, but: Sequence[str] = ("resume", "run", "output_root")) -> dict[str, Any]:
    """Return the settings that the command line of the running script sets, by dotted names; of chosen groups, all fields.

    Args:
        cfg: The composed config.
        but: Settings that say which run is meant.
    """
    given: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task)):
        key = override.get_key_element().lstrip("+~")
        if key not in but:
            value = OmegaConf.select(cfg, key)
            plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            given |= _flattened(key, plain)
    return given


def _flattened(key: str, value: Any) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(value, dict):
        return {key: value}
    return {name: item for part, inner in value.items() for name, item in _flattened(f"{key}.{part}", inner).items()}


def _name_the_wrong_override(config_name: str, parsed: list[Override], lines: list[str]) -> NoReturn:
    """Find the override that does not compose, and raise the UserError that says why."""
    for position, override in enumerate(parsed):
        try:
            hydra.compose(config_name, lines[: position + 1])
        except (HydraException, OmegaConfBaseException) as error:
            key = override.get_key_element()
            before = hydra.compose(config_name, lines[:position])
            known = list(_flat_keys(before))
            if key in known and isinstance(override.value(), dict) and OmegaConf.is_dict(OmegaConf.select(before, key)):
                raise UserError(
                    f"{override.input_line!r} names entries that {key} does not have: add one with '+{key}.NAME=…', "
                    f"drop one with '~{key}.NAME', or replace them all with '~{key}' '+{override.input_line}'."
                ) from error
            if key in known:
                raise UserError(f"{override.input_line!r}: {str(error).splitlines()[0]}") from error
            raise UserError(f"Unknown key {key!r}. {_nearest_keys(key, known)}") from error
    raise AssertionError("the overrides compose one after another")


def _resolved(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    @functools.wraps(main)
    def checked(cfg: DictConfig) -> None:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise UserError(f"{missing[0]} must be given: add {missing[0]}=… to the command.")
        OmegaConf.resolve(cfg)
        main(cfg)

    return checked


def _flat_keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in cfg:
        name = f"{prefix}{key}"
        yield name
        if OmegaConf.is_missing(cfg, key):
            continue
        value = cfg[key]
        if isinstance(value, DictConfig):
            yield from _flat_keys(value, f"{name}.")


def _nearest_keys(key: str, known: list[str]) -> str:
    """Offer the nearest key, among its siblings if its parent exists."""
    parent = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    return nearest_name(key, siblings or [name for name in known if "." not in name])
