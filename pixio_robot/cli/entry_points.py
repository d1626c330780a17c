"""What makes a function a command: its settings are read from the command line and configs/, and checked at the door.

Together with `composition` the one module of the package that knows Hydra.
"""

import atexit
import gc
import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from pixio_robot.cli.command_line import CommandLine, parse
from pixio_robot.cli.composition import check, settings_from, store_defaults
from pixio_robot.cli.jobs import CONFIG_FOLDER, job_file
from pixio_robot.common.errors import UserError, exits_on_user_error, missing_extra
from pixio_robot.common.settings import fields_of, plain
from pixio_robot.common.storage.documents import read_yaml
from pixio_robot.engine.run_folder import CONFIG_FILE, run_to_resume

# Hydra shall neither configure logging nor write folders of its own; a sweep keeps its list of runs in outputs/.
_QUIET = {
    "hydra/job_logging": "none",
    "hydra/hydra_logging": "none",
    "hydra.run.dir": ".",
    "hydra.output_subdir": "null",
    "hydra.sweep.dir": "outputs",
    "hydra.sweep.subdir": ".",
}

# Settings of a continued run that are those of the command line; what a run started from is in its weights.
_OF_THE_COMMAND = ("run", "resume", "output_root", "start_from")


@dataclass(frozen=True)
class Job[S]:
    """A command: calling it runs it on this process's command line."""

    name: str
    """Its file in `configs`."""
    settings: type[S]
    """What it is told."""
    main: Callable[[S], None]
    explanation: str
    """What it does, and examples."""
    positional: Sequence[str] = ()
    """Keys that arguments without a ``=`` are the values of, in this order."""
    configs: Path = CONFIG_FOLDER
    """The folder of its file."""
    finished_by: str | None = None
    """Name of the file that finished runs have, of a job whose runs can be continued."""

    def __post_init__(self) -> None:
        """Show Hydra a file that is not in configs/; what it chooses from is."""
        if self.configs != CONFIG_FOLDER:
            ConfigStore.instance().store(name=self.name, node=OmegaConf.load(self.configs / f"{self.name}.yaml"))

    @exits_on_user_error
    def __call__(self) -> None:
        """Run it, answering a user's mistakes in one sentence with exit code 2."""
        # Else the end of the process takes a second of looking for cycles among all that torch brought.
        atexit.register(gc.freeze)
        line = parse(sys.argv[1:], self.settings, self.positional)
        if "--help" in line.named:
            from pixio_robot.cli.explanation import explain

            print(explain(self, line))
            return
        _check_launcher(line)
        check(self.name, self.settings, line.overrides, line.config_dir, line.runs, self._saved)
        store_defaults(self.settings)
        sys.argv[1:] = [*line.flags, *_quietened(line), *line.overrides]
        run = hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=self.name)
        run(exits_on_user_error(self._told))()

    def _told(self, cfg: DictConfig) -> None:
        self.main(settings_from(self.settings, cfg, self._saved(cfg), HydraConfig.get().overrides.task))

    def _saved(self, cfg: DictConfig) -> Mapping[str, Any] | None:
        """Return the settings of the run that a config continues, but for those that say which run is meant."""
        if self.finished_by is None or cfg.get("resume") is None:
            return None
        folder = run_to_resume(Path(cfg.output_root) / self.name, cfg.run, cfg.resume, self.finished_by)
        if folder is None:
            return None
        saved = read_yaml(folder / CONFIG_FILE)
        if not isinstance(saved, dict):
            raise UserError(f"{folder / CONFIG_FILE} holds no settings: start a new run.")
        return {name: value for name, value in saved.items() if name not in _OF_THE_COMMAND}

    def read(self, arguments: Sequence[str]) -> S:
        """Return the settings of the one run that a command line asks for, without running it.

        Raises:
            UserError: See `check`.
        """
        line = parse(arguments, self.settings, self.positional)
        return check(self.name, self.settings, line.overrides, line.config_dir, saved=self._saved)[0]


def entry_point[S](
    name: str,
    settings: type[S],
    positional: Sequence[str] = (),
    configs: Path = CONFIG_FOLDER,
    finished_by: str | None = None,
) -> Callable[[Callable[[S], None]], Job[S]]:
    """Make a function that takes settings a command.

    Args:
        name: The file in configs/ that says what differs from the defaults of the settings.
        settings: What the function takes.
        positional: Keys that arguments without a ``=`` are the values of, in this order.
        configs: The folder of that file, where it is not configs/.
        finished_by: Name of the file that finished runs have, of a job whose runs can be continued (`run`, `resume`).
    """

    def decorate(main: Callable[[S], None]) -> Job[S]:
        explanation = sys.modules[main.__module__].__doc__ if main.__module__ in sys.modules else None
        explanation = explanation or main.__globals__.get("__doc__") or ""
        return Job(name, settings, main, explanation.strip(), positional, configs, finished_by)

    return decorate


def load_job(name: str) -> Job:
    """Import a job's script, which imports nothing heavy before the job runs.

    Raises:
        UserError: There is no such job.
    """
    file, running = job_file(name), sys.modules["__main__"]
    if str(file) == getattr(running, "__file__", None) and hasattr(running, "main"):
        return running.main
    spec = importlib.util.spec_from_file_location(f"_pixio_job_{name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for what their annotations name
    spec.loader.exec_module(module)
    return module.main


def _check_launcher(line: CommandLine) -> None:
    """Check, before anything is composed, that what starts the runs of a sweep can do so here.

    Raises:
        UserError: It is not installed, there is no Slurm, or there is no sweep.
    """
    for override in line.overrides:
        key, _, launcher = override.partition("=")
        if key != "hydra/launcher":
            continue
        if not line.multirun:
            raise UserError(
                f"{override} has no effect on a single run: add -m, and what to sweep over, such as seed=0,1,2."
            )
        if launcher.startswith("submitit") and importlib.util.find_spec("submitit") is None:
            raise UserError(missing_extra("hydra-submitit-launcher") or "")
        if launcher == "submitit_slurm" and shutil.which("srun") is None:
            raise UserError(
                f"{override}: there is no Slurm here (no srun). Start the sweep where jobs are submitted from, or try it on "
                "this machine with hydra/launcher=submitit_local."
            )


def _quietened(line: CommandLine) -> list[str]:
    given = {override.partition("=")[0] for override in line.overrides}
    return [f"{key}={value}" for key, value in _QUIET.items() if key not in given]


def given_settings(
    settings: object, but: Sequence[str] = ("resume", "run", "output_root"), instead: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return those of a running job's settings that stand on its command line, by dotted names; of chosen groups, all fields.

    Args:
        settings: The job's settings.
        but: Settings that say which run is meant.
        instead: Groups in whose place another setting stands.
    """
    values = plain(settings)
    given: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task)):
        path = override.get_key_element().lstrip("+~").split(".")
        if path[0] in but:
            continue
        if instead and path[0] in instead:
            path = instead[path[0]].split(".")
        value: Any = values
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        given |= _flat(value, ".".join(path))
    return given


def _flat(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {name: value}
    return {dotted: leaf for key, entry in value.items() for dotted, leaf in _flat(entry, f"{name}.{key}").items()}


def given_fields(settings: object, group: str, instead: str | None = None) -> dict[str, Any]:
    """Return the fields of a group that the command line of the running job sets: one by one, or all where it chooses the group.

    Args:
        settings: The job's settings.
        group: A config group, for example `policy`.
        instead: The key that makes a choice of the whole group; where there is one, choosing the group is refused.

    Raises:
        UserError: The command line chooses the group as a whole.
    """
    assert group in fields_of(type(settings))
    for override in HydraConfig.get().overrides.task:
        if instead is not None and override.lstrip("+~").partition("=")[0] == group:
            raise UserError(
                f"{override} has no effect with {instead}, which brings its own {group}: leave it out, or change single fields "
                f"({group}.NAME=…)."
            )
    names = [name.split(".")[1] for name in given_settings(settings) if name.startswith(f"{group}.")]
    values = plain(settings)[group]
    return {name: values[name] for name in names}
