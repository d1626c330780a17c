"""The TensorBoard log of a run, in the folder `tensorboard` of the run."""

from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter


class Board:
    """Scalars and pictures over steps."""

    def __init__(self, folder: Path, first: int) -> None:
        """Write to `folder`; of an interrupted run, what lies after step `first` is taken back."""
        self._writer = SummaryWriter(str(folder), purge_step=first + 1)

    def scalars(self, records: list[dict[str, float]]) -> None:
        """Add what the run log has of some steps: everything but `step` becomes a curve."""
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
