"""What a job can be told, in words: `--help`, and configs/README.md.

    uv run scripts/list.py settings > configs/README.md

Sentences come from the fields of the settings; those of policies and environments, whose fields are LeRobot's, from the comments
in configs/policy and configs/env.
"""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from pixio_robot.cli.command_line import CommandLine
from pixio_robot.cli.composition import compose_here, configs
from pixio_robot.cli.jobs import CONFIG_FOLDER
from pixio_robot.common.commands import as_called_here
from pixio_robot.common.settings import describe, explanation_of, fields_of, look_up, settings_in

if TYPE_CHECKING:
    from pixio_robot.cli.entry_points import Job

_INDENT = " " * 6
_WIDTH = 110


@dataclass(frozen=True)
class Key:
    """One setting."""

    name: str
    """Dotted."""
    value: str
    """As it is now, as the command line writes it; empty for a group."""
    explanation: str
    accepts: str
    """In words; empty for a group."""
    choices: tuple[str, ...] = ()
    """Of a group: the files in configs/."""


def keys_of(job: "Job", line: CommandLine) -> list[Key]:
    """Return every setting of a job, with the values that a command line gives them."""
    with configs(job.settings, line.config_dir):
        cfg = compose_here(job.name, list(line.overrides), job.settings)
        return list(_keys(job.settings, cfg, _choices_of(job, line)))


def _choices_of(job: "Job", line: CommandLine) -> dict[str, str]:
    """Return which choice of every group a job makes."""
    listed = yaml.safe_load((job.configs / f"{job.name}.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen: dict[str, str] = {
        group: choice for entry in listed if isinstance(entry, dict) for group, choice in entry.items()
    }
    given = {key: value for key, _, value in (override.partition("=") for override in line.overrides)}
    return {group: given.get(group, choice) or "null" for group, choice in chosen.items()}


def _keys(settings: type, cfg: DictConfig, chosen: Mapping[str, str], prefix: str = "") -> Iterator[Key]:
    for name, field in fields_of(settings).items():
        dotted, explanation = f"{prefix}{name}", _one_line(explanation_of(settings, name))
        groups, value = settings_in(field.annotation), _value(cfg, name)
        inner = cfg[name] if isinstance(cfg, DictConfig) and OmegaConf.is_dict(OmegaConf.select(cfg, name)) else None
        if dotted in chosen or (groups and inner is not None):
            options = [] if prefix else GlobalHydra.instance().config_loader().get_group_options(dotted)
            yield Key(dotted, chosen.get(dotted, ""), explanation, "", tuple(options))
            if groups and inner is not None:
                kind = [group for group in groups if "kind" in inner and fields_of(group)["kind"].default == inner.kind]
                yield from _keys((kind or groups)[0], inner, chosen, f"{dotted}.")
            elif inner is not None:
                comments = yaml_comments(dotted, chosen[dotted])
                for key in inner:
                    yield Key(f"{dotted}.{key}", _value(inner, str(key)), comments.get(str(key), ""), "")
        else:
            accepts = " or ".join(f"{group.__name__}: {', '.join(fields_of(group))}" for group in groups)
            yield Key(dotted, value, explanation, accepts or describe(look_up(settings, (name,)).annotation))


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _value(cfg: DictConfig, name: str) -> str:
    """Return a value as the command line writes it; an ellipsis where it must be given."""
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    value = values[name]
    if isinstance(value, dict | list):
        return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()
    return value.replace("???", "…") if isinstance(value, str) else json.dumps(value)


def yaml_comments(group: str, choice: str) -> dict[str, str]:
    """Return the comments behind the keys of a choice, and of the choices that it builds on."""
    file = CONFIG_FOLDER / group / f"{choice}.yaml"
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8")
    comments: dict[str, str] = {}
    for entry in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            comments |= yaml_comments(group, entry)
    own = re.findall(r"^(\w+):.*?\s#\s(.*)$", text, re.MULTILINE)
    return comments | {key: f"{comment[:1].upper()}{comment[1:]}." for key, comment in own}


def explain(job: "Job", line: CommandLine) -> str:
    """Return what `--help` says."""
    parts = [
        as_called_here(job.explanation),
        "",
        "Settings, given as KEY=VALUE; -m KEY=A,B runs one after the other; --cfg job shows all:",
        "",
    ]
    for key in keys_of(job, line):
        parts.append(f"  {key.name}{'=' if key.value else ''}{key.value}")
        about = " ".join(filter(None, (key.explanation, f"[{key.accepts}]" if key.accepts else "", _choices(key))))
        if about:
            parts.append(textwrap.fill(about, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT))
    return "\n".join(parts)


def _choices(key: Key) -> str:
    return f"One of: {', '.join(key.choices)}." if key.choices else ""


_PREFACE = """# Settings

One file per job (those of benchmarks: `scripts/benchmarks/configs`), one folder per choice. A job's defaults are those of its
settings in the code; a file here says what differs.
Every job takes `KEY=VALUE` on its command line, `-m KEY=A,B` for one run after the other, `--cfg job` to show everything, and
`--help`. Text is taken as it is typed; a list is `'KEY=[a,b]'`; keys that are not here yet are added with `+KEY=VALUE` (those
of a policy, an environment or a robot without the `+`).
A wrong name, type or value is one sentence, exit code 2, and nothing is written.

A choice of one's own: put `encoder/mine.yaml` into a folder and give `--config-dir FOLDER encoder=mine`.

This file is made by `uv run scripts/list.py settings > configs/README.md`.
"""


def settings_page(jobs: "Iterable[Job]") -> str:
    """Return configs/README.md: every key of every job with its sentence, those of a group that jobs share once."""
    GlobalHydra.instance().clear()  # of the job that asks for this page
    parts = [_PREFACE]
    explained: dict[str, str] = {}
    for job in sorted(jobs, key=lambda job: (job.name.startswith("benchmark"), job.name != "train_policy", job.name)):
        name = job.name
        parts += [
            f"## {name}",
            "",
            _one_line(job.explanation.split("\n\n")[0]),
            "",
            "| key | default | |",
            "|---|---|---|",
        ]
        keys = keys_of(job, CommandLine())
        for key in keys:
            group = key.name.partition(".")[0]
            if not key.choices and explained.get(group, name) != name:
                continue
            about = _sentences(key)
            if key.choices and explained.setdefault(group, name) != name:
                about = f"{key.explanation} Its keys are those of [{explained[group]}](#{explained[group]})."
            parts.append(_row(key, about))
            if key == next(last for last in reversed(keys) if last.name.partition(".")[0] == group):
                parts += _rows_of_other_choices(job, group, keys)
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _rows_of_other_choices(job: "Job", group: str, keys: Sequence[Key]) -> Iterator[str]:
    """Yield the keys of a group that its default choice does not have."""
    known = {key.name for key in keys}
    choices = next((key.choices for key in keys if key.name == group), ())
    for choice in choices:
        for key in keys_of(job, CommandLine(overrides=(f"{group}={choice}",))):
            if key.name not in known:
                known.add(key.name)
                yield _row(key, f"With {group}={choice}. {_sentences(key)}")


def _row(key: Key, about: str) -> str:
    return f"| `{key.name}` | {f'`{_cell(key.value)}`' if key.value else ''} | {_cell(about.strip())} |"


def _sentences(key: Key) -> str:
    accepts = f"{key.accepts[:1].upper()}{key.accepts[1:]}." if key.accepts else ""
    return " ".join(filter(None, (key.explanation, accepts, _choices(key))))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
