"""One table and one figure of finished runs of train_policy.py: success, a paired test, and the cost."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point


@entry_point("compare_runs")
def main(cfg: DictConfig) -> None:
    """Compare; see configs/compare_runs.yaml."""
    from pixio_robot.common.files import write_json, write_text
    from pixio_robot.evaluation.comparison.runs import (
        as_json,
        as_markdown,
        as_table,
        compare_runs,
        find_runs,
        save_comparison_picture,
    )

    output = Path(cfg.output)
    rows = compare_runs(find_runs([Path(place) for place in cfg.runs]))
    write_json(output / "comparison.json", as_json(rows))
    write_text(output / "comparison.md", as_markdown(rows))
    save_comparison_picture(rows, output / "comparison.png")
    console = Console()
    console.print(as_table(rows))
    console.print(f"results {output}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
