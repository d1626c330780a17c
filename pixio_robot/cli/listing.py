"""What there is to choose from: encoders, tasks, policies, robots, and the runs so far, as tables."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.table import Table

from pixio_robot.cli.jobs import CONFIG_FOLDER
from pixio_robot.common.errors import UserError, nearest_name
from pixio_robot.common.storage.json_lines import read_lines

_RESULTS = ("report.html", "encoder.safetensors", "evaluation.json")
"""Files that finished runs have; of the runs of run_policy, only finished ones are written."""


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading == headings[0])
    return table


def chosen(group: str, name: str) -> dict[str, Any]:
    """Return what a choice of configs/ says.

    Raises:
        UserError: There is no such choice.
    """
    known = _choices(group)
    if name not in known:
        raise UserError(f"Unknown {group} {name!r}. {nearest_name(name, known)}")
    return known[name]


def _choices(group: str) -> dict[str, dict[str, Any]]:
    """Return the fields of every choice of a group, those of the choices that it builds on included."""
    return {file.stem: _fields(file) for file in sorted((CONFIG_FOLDER / group).glob("*.yaml"))}


def _fields(file: Path) -> dict[str, Any]:
    own: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    below = own.pop("defaults", [])
    assert isinstance(below, list)
    for name in below:
        own = _fields(file.with_name(f"{name}.yaml")) | own
    return own


def encoders() -> Table:
    """Tabulate the choices of configs/encoder, whose parameters are counted on tensors without values."""
    import torch

    from pixio_robot.encoders.backbones import build_backbone
    from pixio_robot.encoders.torchscript import TORCHSCRIPT

    table = _table("encoder=", "timm name", "parameters", "licence", "weights")
    for choice, fields in _choices("encoder").items():
        name = str(fields["name"])
        if name == TORCHSCRIPT:
            table.add_row(choice, "–", "–", "yours", "encoder.weights=FILE, of torch.jit.save")
            continue
        with torch.device("meta"):
            parameters = sum(weight.numel() for weight in build_backbone(name, "random").parameters())
        table.add_row(choice, name, f"{parameters / 1e6:,.1f} M", *_weights(name, str(fields.get("weights"))))
    return table


def _weights(name: str, configured: str) -> tuple[str, str]:
    """Return the licence of an encoder's pretrained weights, and where they are."""
    import timm

    from pixio_robot.encoders.hub import cached_snapshot

    source = timm.get_pretrained_cfg(name)
    if configured == "random" or source is None or not (source.file or source.hf_hub_id):
        return "–", "none: random, or encoder.weights=FILE"
    licence = source.license or "not stated"
    if source.file:
        return licence, "here, in the package" if Path(source.file).is_file() else f"missing: {source.file}"
    assert source.hf_hub_id is not None
    if cached_snapshot(source.hf_hub_id):
        return licence, "here, in the hub's cache"
    return licence, f"not here: downloaded at first use ({source.hf_hub_id})"


def tasks() -> Table:
    """Tabulate the tasks of the installed environments that say which they have."""
    from pixio_robot.environments import known_environments

    chosen = {(fields["type"], fields["task"]): f"env={choice}" for choice, fields in _choices("env").items()}
    general = {fields["type"]: f"env={choice}" for choice, fields in reversed(_choices("env").items())}
    table = _table("environment", "task", "choose by", "robots", "render profiles")
    for kind, config in known_environments().items():
        for task in getattr(config, "tasks", list)():
            choose = chosen.get((kind, task), f"{general.get(kind, f'env.type={kind}')} env.task={task}")
            what_else = (", ".join(getattr(config, names, ())) for names in ("robots", "render_profiles"))
            table.add_row(kind, task, choose, *what_else)
    if not table.row_count:
        raise UserError("No environment is installed: pip install lerobot_env_pixio (in a clone: pip install -e envs).")
    return table


def policies() -> Table:
    """Tabulate the choices of configs/policy."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    known = PreTrainedConfig.get_known_choices()
    table = _table("policy=", "LeRobot's name", "what it is", "installed")
    for choice, fields in _choices("policy").items():
        kind = str(fields["type"])
        about = _first_sentence(known[kind]) if kind in known else ""
        table.add_row(choice, kind, about, "yes" if kind in known else "no: pip install lerobot_policy_pixio")
    return table


def robots() -> Table:
    """Tabulate the robots that LeRobot can make here."""
    from pixio_robot.deployment.robots.lerobot_robot import known_robots

    table = _table("choose by", "must be given", "what it is")
    table.add_row("robot=sim", "", "A simulated task, as env says.")
    for kind, config in known_robots().items():
        needed = [
            f"+robot.{field.name}="
            for field in dataclasses.fields(config)
            if field.default is field.default_factory is dataclasses.MISSING
        ]
        table.add_row(f"robot=lerobot robot.type={kind}", " ".join(needed), _first_sentence(config))
    return table


def _first_sentence(kind: type) -> str:
    """Return what a class says of itself; nothing where dataclasses wrote its signature there."""
    text = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
    return "" if text.startswith(f"{kind.__name__}(") else text


def runs(output_root: Path) -> Table:
    """Tabulate the runs of all jobs, the oldest first."""
    from pixio_robot.evaluation.record import EvaluationRecord

    files = (file for file in output_root.glob("*/*/config.yaml") if file.is_file())
    configs = sorted(files, key=lambda file: file.stat().st_mtime)
    if not configs:
        raise UserError(f"There are no runs in {output_root}: begin one, or give output_root=FOLDER.")
    table = _table("run", "state", "success")
    for folder in [config.parent for config in configs]:
        finished = folder.parent.name == "run_policy" or any((folder / result).exists() for result in _RESULTS)
        records = [file for place in ("", "evaluation") if (file := folder / place / "evaluation.json").is_file()]
        try:
            success = EvaluationRecord.load(records[0]).summary() if records else "–"
        except UserError:
            success = "evaluation.json cannot be read"
        state = "finished" if finished else f"unfinished{_last_step(folder)}"
        table.add_row(str(folder), state, success)
    return table


def _last_step(folder: Path) -> str:
    steps = [line["step"] for line in read_lines(folder / "log.jsonl") if "step" in line]
    return f", step {steps[-1]}" if steps else ""


TABLES: dict[str, Callable[[], Table]] = {
    "encoders": encoders,
    "tasks": tasks,
    "policies": policies,
    "robots": robots,
}
"""Those that do not depend on what was done here."""
