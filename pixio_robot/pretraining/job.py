"""One call of a training script: processes join, images are opened, a run folder is chosen, training runs."""

import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pixio_robot.common.errors import UserError
from pixio_robot.engine.runs import newest_unfinished
from pixio_robot.engine.stopping import StoppedError
from pixio_robot.pretraining.config import TrainingConfig
from pixio_robot.pretraining.distributed import join_processes
from pixio_robot.pretraining.model.weights import ENCODER_FILE
from pixio_robot.pretraining.objectives.reconstruction import Objective
from pixio_robot.pretraining.sources import ImageSource
from pixio_robot.pretraining.trainer import train


def run_job[C: TrainingConfig](
    config: C,
    objective: Callable[[C], Objective],
    open_images: Callable[[], ImageSource],
    runs: Path,
    resume: str | None,
) -> None:
    """Train, and say where the output goes and where the encoder is.

    Args:
        config: Settings.
        objective: Builds what is minimised.
        open_images: Opens the images; one process of each machine does it before the others.
        runs: Folder in which a new run folder is made, named after the time.
        resume: An interrupted run's folder instead, or `last` for the newest one in `runs`.

    Raises:
        UserError: `resume` is no folder, there is no interrupted run, or see `train`.
    """
    if resume == "last":
        resume = str(newest_unfinished(runs, ENCODER_FILE))
    if resume and not Path(resume).is_dir():
        raise UserError(f"There is no run at {resume}: give the folder of an interrupted run, or resume=last.")
    with join_processes(config) as processes:
        with processes.first_of_machine():
            source = open_images()
        folder = processes.share(Path(resume or runs / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"))
        if processes.main:
            count = "a stream of" if source.images is None else source.images
            print(f"{count} images, output in {folder}", flush=True)
        try:
            encoder = train(config, objective, source, folder, resume=bool(resume), processes=processes)
        except KeyboardInterrupt as stopped:
            if processes.main:
                print(f"stopped; continue with the same command and resume={folder}", file=sys.stderr, flush=True)
            if isinstance(stopped, StoppedError) and stopped.request == signal.SIGTERM:
                processes.wait()  # until every one has written what is its own
                signal.raise_signal(signal.SIGTERM)
            raise
        if processes.main:
            print(f"encoder: {encoder}")
