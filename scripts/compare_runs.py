"""One table and one figure of finished runs of train_policy.py: success, a paired test, and the cost.

uv run scripts/compare_runs.py
uv run scripts/compare_runs.py 'runs=[outputs/train_policy/frozen,outputs/train_policy/lora]'
uv run scripts/compare_runs.py 'runs=[lab/outputs]' output=comparison
"""

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Place, Text, settings


@settings(kw_only=True)
class CompareRuns:
    """Settings of the job."""

    output_root: Text = "outputs"
    """Folder in which runs and the comparison are unless the others say so."""
    runs: tuple[Place, ...]
    """Run folders, or folders of them; all are compared with the first."""
    output: Place
    """Folder of the table and the figure."""


@entry_point("compare_runs", CompareRuns)
def main(settings: CompareRuns) -> None:
    """Compare."""
    from pixio_robot.common.files import write_json, write_text
    from pixio_robot.evaluation.comparison.runs import (
        as_json,
        as_markdown,
        as_table,
        compare_runs,
        find_runs,
        save_comparison_picture,
    )

    rows = compare_runs(find_runs(settings.runs))
    write_json(settings.output / "comparison.json", as_json(rows))
    write_text(settings.output / "comparison.md", as_markdown(rows))
    save_comparison_picture(rows, settings.output / "comparison.png")
    console = Console()
    console.print(as_table(rows))
    console.print(f"results {settings.output}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
