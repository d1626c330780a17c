"""Which jobs there are: their scripts, groups and one-line summaries, read without importing them.

In a clone configs/ and scripts/ stand beside the package; the wheel brings both inside of it, benchmarks left out.
"""

import ast
from pathlib import Path

from pixio_robot.common.commands import IN_WHEEL, PACKAGE
from pixio_robot.common.errors import UserError, nearest_name

_HOME = PACKAGE if IN_WHEEL else PACKAGE.parent

CONFIG_FOLDER = _HOME / "configs"
SCRIPT_FOLDERS = (_HOME / "scripts", _HOME / "scripts" / "benchmarks")

GROUPS = {
    "Look around": ("doctor", "list"),
    "Train a policy": ("train_policy",),
    "Demonstrations": ("collect_demos", "inspect_demos", "replay_demo", "convert_demos", "measure_experts"),
    "Measure a policy": ("evaluate_policy", "compare_runs"),
    "Bring it to a robot": ("export", "export_encoder", "verify_artifact", "run_policy", "serve_policy"),
    "Pretrain an encoder": ("render_scenes", "pretrain_encoder", "distill_encoder", "score_images"),
    "What an encoder is worth": ("evaluate_encoder",),
}
"""Titles and jobs as in scripts/README.md."""


def job_files() -> dict[str, Path]:
    """Return the script of every job, by the job's name."""
    files = [file for folder in SCRIPT_FOLDERS for file in sorted(folder.glob("*.py"))]
    return {file.stem: file for file in files if "@entry_point(" in file.read_text(encoding="utf-8")}


def job_file(name: str) -> Path:
    """Return the script of a job, which may also be called by an older name.

    Raises:
        UserError: There is no such job.
    """
    files = job_files()
    older = {file.stem: file for file in SCRIPT_FOLDERS[0].glob("*.py")}
    if name not in files | older:
        raise UserError(f"Unknown job {name!r}. {nearest_name(name, files)}")
    return (files | older)[name]


def summaries() -> dict[str, dict[str, str]]:
    """Return the first sentence of every job, by group and name."""
    files = job_files()
    titles = {name: title for title, names in GROUPS.items() for name in names}
    found: dict[str, dict[str, str]] = {title: {} for title in (*GROUPS, "Benchmarks", "More")}
    order = [name for names in GROUPS.values() for name in names if name in files]
    for name in dict.fromkeys([*order, *files]):
        in_benchmarks = files[name].parent == SCRIPT_FOLDERS[1]
        docstring = ast.get_docstring(ast.parse(files[name].read_text(encoding="utf-8"))) or ""
        title = titles.get(name, "Benchmarks" if in_benchmarks else "More")
        found[title][name] = docstring.partition("\n\n")[0].replace("\n", " ")
    return {title: jobs for title, jobs in found.items() if jobs}
