"""Curves of a run on TensorBoard and wandb; the one module that imports either."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from pixio_robot.common.errors import UserError


class Curves(Protocol):
    """Where the numbers of a run are drawn."""

    def scalars(self, records: list[dict[str, float]]) -> None:
        """Add what there is of some steps; everything but `step` is a curve."""
        ...

    def picture(self, name: str, picture_HWC: np.ndarray, step: int) -> None:
        """Add a uint8 RGB picture."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class Board:
    """Scalars and pictures over steps."""

    def __init__(self, folder: Path, first: int) -> None:
        """Write to `folder`; of an interrupted run, what lies after step `first` is taken back."""
        from torch.utils.tensorboard import SummaryWriter  # here: it takes a second to import

        self._writer = SummaryWriter(str(folder), purge_step=first + 1)

    def scalars(self, records: list[dict[str, float]]) -> None:
        """Add what there is of some steps: everything but `step` becomes a curve."""
        for record in records:
            for name, value in record.items():
                if name != "step":
                    self._writer.add_scalar(name, value, int(record["step"]))
        self._writer.flush()

    def picture(self, name: str, picture_HWC: np.ndarray, step: int) -> None:
        """Add a uint8 RGB picture."""
        self._writer.add_image(name, picture_HWC, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


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

    def picture(self, name: str, picture_HWC: np.ndarray, step: int) -> None:
        """Pictures stay in the run folder and on TensorBoard."""

    def scalars(self, records: list[dict[str, float]]) -> None:
        """Add what there is of some steps: everything but `step` becomes a curve."""
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
