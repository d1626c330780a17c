"""One table and one figure of finished runs of train_policy.py: success, a paired test, and the cost.

uv run scripts/compare_runs.py
uv run scripts/compare_runs.py 'runs=[frozen,lora,latest]'
uv run scripts/compare_runs.py 'runs=[lab/outputs]' output=comparison
"""

from pathlib import Path

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Place, Text, settings


@settings(kw_only=True)
class CompareRuns:
    """Settings of the job."""

    output_root: Text = "outputs"
    """Folder in which runs and the comparison are unless the others say so."""
    runs: tuple[Place, ...]
    """Run folders, folders of them, names of runs, or `latest`; all are compared with the first."""
    output: Place
    """Folder of the table (Markdown, CSV, LaTeX, JSON) and the figure (PNG, PDF)."""


@entry_point("compare_runs", CompareRuns)
def main(settings: CompareRuns) -> None:
    """Compare."""
    from pixio_robot.evaluation.comparison.runs import compare_runs, find_runs
    from pixio_robot.evaluation.comparison.tables import as_table, save_comparison

    rows = compare_runs(find_runs(settings.runs, Path(settings.output_root) / "train_policy"))
    save_comparison(rows, settings.output)
    console = Console()
    console.print(as_table(rows))
    console.print(f"results {settings.output}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
