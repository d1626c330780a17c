"""Settings from defaults, the choices in configs/ and a command line; a wrong choice, key or value is one sentence.

The defaults are those of the job's settings: Hydra composes the files in configs/ over them.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pixio_robot.cli.jobs import CONFIG_FOLDER
from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.settings import fields_of, is_settings, look_up, plain, settings_in

BASE = "base"
"""What the files in configs/ call the defaults of their job."""
type SavedRun = Callable[[DictConfig], Mapping[str, Any] | None]


def defaults(settings: type) -> dict[str, Any]:
    """Return the defaults of settings as plain values; `???` stands where there is none."""
    values: dict[str, Any] = {}
    for name, field in fields_of(settings).items():
        groups = settings_in(field.annotation)
        if not field.is_required():
            default = field.get_default(call_default_factory=True)
            values[name] = plain(default) if is_settings(type(default)) else _plain_value(default)
        else:
            values[name] = defaults(groups[0]) if len(groups) == 1 else MISSING
    return values


def _plain_value(value: object) -> object:
    if isinstance(value, dict):
        return {key: plain(entry) if is_settings(type(entry)) else _plain_value(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain_value(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


@contextlib.contextmanager
def configs(settings: type | None, config_dir: str | None = None) -> Iterator[None]:
    """Let Hydra find the files in configs/, the defaults of a job, and further choices in a folder of the user's."""
    store_defaults(settings)
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        if config_dir is not None:
            loader.get_search_path().prepend("command-line", f"file://{Path(config_dir).absolute()}", "schema")
            loader.repository.initialize_sources(loader.get_search_path())
        yield


def store_defaults(settings: type | None) -> None:
    """Give Hydra the defaults of a job, and those of each kind where a group is one of several."""
    store = ConfigStore.instance()
    if settings is None:
        return
    store.store(name=BASE, node=defaults(settings))
    for name, field in fields_of(settings).items():
        kinds = settings_in(field.annotation)
        for kind in kinds if len(kinds) > 1 else ():
            store.store(group=name, name=fields_of(kind)["kind"].default, node=defaults(kind))


def compose(job: str, settings: type | None, overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """Compose a job's config; see `check` for what is refused."""
    with configs(settings, config_dir):
        return compose_here(job, list(overrides), settings)


def check[S](
    job: str,
    settings: type[S] | None,
    overrides: Sequence[str],
    config_dir: str | None = None,
    build: bool = True,
    saved: SavedRun = lambda cfg: None,
) -> list[S]:
    """Check everything that a command line says before anything slow is imported.

    Args:
        job: The file in configs/.
        settings: What the composed config must fit.
        overrides: Of the command line; of those that sweep over several values, each value is checked.
        config_dir: A folder of further choices.
        build: Whether the job is to run, so that nothing may be missing.
        saved: Returns the settings of the run that a config continues, if it does.

    Returns:
        What was built: of the first value of every sweep, then of each other value.

    Raises:
        UserError: A group choice or a key is unknown (the nearest valid one is offered), a value is missing or wrong, or an
            override cannot be read.
    """
    parsed = [_parsed(override) for override in overrides]
    with configs(settings, config_dir):
        for override in parsed:
            _check_choice(override)
        values = [_values(override) for override in parsed]
        lines = [first[0] for first in values]
        variants = [lines] + [
            [*lines[:position], value, *lines[position + 1 :]]
            for position, options in enumerate(values)
            for value in options[1:]
        ]
        built = []
        for variant in variants:
            cfg = compose_here(job, variant, settings)
            if settings is not None and build:
                built.append(settings_from(settings, cfg, saved(cfg), variant))
        return built


def settings_from[S](
    settings: type[S], cfg: DictConfig, saved: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> S:
    """Build settings from a composed config, or from those of the run that it continues and what the command line says.

    Raises:
        UserError: A value is missing or wrong, or refers to nothing.
    """
    if saved is not None:
        cfg = _continued(cfg, saved, overrides)
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        values: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"Cannot fill in ${{…}}: {str(error).splitlines()[0]}.") from error
    if missing:
        raise UserError(f"{missing[0]} must be given: add {missing[0]}=… to the command.")
    return settings(**values)


def _continued(cfg: DictConfig, saved: Mapping[str, Any], overrides: Sequence[str]) -> DictConfig:
    given = [_parsed(override).get_key_element().lstrip("+~") for override in overrides]
    values: Any = OmegaConf.to_container(cfg)
    kept = {name: value for name, value in saved.items() if name in values and name not in given}
    continued: Any = OmegaConf.create(values | kept)
    for key in given:
        if key.partition(".")[0] in kept:
            OmegaConf.update(continued, key, OmegaConf.select(cfg, key), force_add=True)
    return continued


def _parsed(override: str) -> Override:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException as error:
        key, _, value = override.partition("=")
        inner = value.strip("'\"")
        raise UserError(
            f"Cannot read {override!r} as KEY=VALUE: if {inner!r} is meant as it stands, quote it twice, \"{key}='{inner}'\"."
        ) from error


def _values(override: Override) -> list[str]:
    """Return an override for each value that it sweeps over; itself where it does not."""
    line = str(override.input_line)
    if not override.is_sweep_override():
        return [line]
    prefix = line.partition("=")[0]
    return [f"{prefix}={value}" for value in override.sweep_string_iterator()] or [line]


def _check_choice(override: Override) -> None:
    group = override.get_key_element().lstrip("+~").partition("@")[0]
    choices = GlobalHydra.instance().config_loader().get_group_options(group)
    if not choices or override.is_delete():
        return
    for line in _values(override):
        choice = line.partition("=")[2].strip("'\"")
        if choice not in choices and not choice.startswith(("[", "null")):
            raise UserError(f"Unknown {group} {choice!r}. {nearest_name(choice, choices)}")


def compose_here(job: str, lines: list[str], settings: type | None) -> DictConfig:
    """Compose a job's config within `configs`.

    Raises:
        UserError: A key is unknown, or does not take what it is given.
    """
    try:
        return hydra.compose(job, lines)
    except (HydraException, OmegaConfBaseException):
        pass
    for position, line in enumerate(lines):
        try:
            hydra.compose(job, lines[: position + 1])
        except (HydraException, OmegaConfBaseException) as error:
            before = hydra.compose(job, lines[:position])
            raise UserError(_why_not(_parsed(line), error, before, settings)) from error
    raise AssertionError("the overrides compose one after another")


def _why_not(override: Override, error: Exception, before: DictConfig, settings: type | None) -> str:
    """Say why an override does not compose with what stands before it."""
    key, line = override.get_key_element(), override.input_line
    known = list(_flat_keys(before))
    if key in known and isinstance(override.value(), dict) and OmegaConf.is_dict(OmegaConf.select(before, key)):
        return (
            f"{line!r} names entries that {key} does not have: add one with '+{key}.NAME=…', drop one with '~{key}.NAME', or "
            f"replace them all with '~{key}' '+{line}'."
        )
    if key.lstrip("+~") in known:
        return f"{line!r}: {str(error).splitlines()[0]}"
    parts = key.split(".")
    parent = ".".join(parts[:-1])
    if settings is not None and parent in known and len(look_up(settings, parts).path) == len(parts):
        return f"{parent} is null here: give all of it at once, '{parent}={{{parts[-1]}: …}}'."
    return f"Unknown key {key!r}. {_nearest_keys(key, known)}"


def _flat_keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in cfg:
        name = f"{prefix}{key}"
        yield name
        if not OmegaConf.is_missing(cfg, key) and not OmegaConf.is_interpolation(cfg, str(key)):
            value = cfg[key]
            if isinstance(value, DictConfig):
                yield from _flat_keys(value, f"{name}.")


def _nearest_keys(key: str, known: list[str]) -> str:
    """Offer the nearest key, among its siblings if its parent exists."""
    parent = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    return nearest_name(key, siblings or [name for name in known if "." not in name])
