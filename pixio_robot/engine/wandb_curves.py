"""Curves of a run on wandb; the one module that imports it."""

from pathlib import Path
from typing import Any

import yaml

from pixio_robot.common.errors import UserError


class WandbCurves:
    """Scalars over steps in a wandb project, where a resumed run continues its own curves.

    `WANDB_MODE=offline` keeps them in the run folder, from where `wandb sync` sends them.
    """

    def __init__(self, project: str, run_dir: Path) -> None:
        """Start or continue a wandb run named like the run folder, whose `config.yaml` becomes its config.

        Raises:
            UserError: wandb is not installed, or cannot start (nobody is logged in, for example).
        """
        wandb = import_wandb()
        id_file, config_file = run_dir / "wandb_id", run_dir / "config.yaml"
        resumes = id_file.is_file()
        if not resumes:
            id_file.write_text(wandb.util.generate_id())
        try:
            self._run = wandb.init(
                project=project,
                name=run_dir.resolve().name,
                id=id_file.read_text(),
                resume="allow" if resumes else None,
                dir=str(run_dir),
                config=yaml.safe_load(config_file.read_text()) if config_file.is_file() else None,
                settings=wandb.Settings(console="off"),  # the terminal belongs to our progress bars
            )
        except wandb.errors.Error as error:
            raise UserError(
                f"wandb cannot start ({error}): log in with `wandb login`, set WANDB_MODE=offline, or leave "
                f"trainer.wandb=null."
            ) from error

    def scalars(self, records: list[dict[str, float]]) -> None:
        """Add what the run log has of some steps: everything but `step` becomes a curve."""
        for record in records:
            values = {name: value for name, value in record.items() if name != "step"}
            self._run.log(values, step=int(record["step"]))

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def import_wandb() -> Any:  # noqa: ANN401 (a module)
    """Return the module `wandb`.

    Raises:
        UserError: It is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            "trainer.wandb needs wandb: install it with `pip install 'pixio-robot[wandb]'`, or leave trainer.wandb=null."
        ) from error
    return wandb
