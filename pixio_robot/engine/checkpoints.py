"""Checkpoints of a run: a folder per step that exists whole or not at all, and resuming from the newest good one.

    <step>/state/*.safetensors       weights, their average, the optimiser's moments; each process writes its share
    <step>/state.json                step, identity of the run, loss scale, checksums of everything else
    <step>/samples-<rank>.json       from where streams of samples go on
    <step>/…                         loadable results, as the objective writes them

`state/` is written and read by torch.distributed.checkpoint's safetensors storage, which reads file headers and slices
only: nothing is unpickled from a file, and any number of processes resumes what any other number wrote. It is written
from a copy while training goes on. The newest checkpoints are kept, and every n-th; the links `last` and `best` are for
people and are never needed to find one.
"""

import json
import logging
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from torch import Tensor, distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_sharded
from torch.distributed.checkpoint.state_dict_saver import async_save

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.kept import checksums, first_damaged
from pixio_robot.engine.processes import PATIENCE, Processes

log = logging.getLogger(__name__)

_STATE_FILE = "state.json"
warnings.filterwarnings(
    "ignore", "torch.distributed is disabled", UserWarning
)  # a single process has no others to save with


class Checkpoints:
    """The folder `checkpoints` of a run."""

    def __init__(self, folder: Path, processes: Processes, keep: int = 2, keep_every: int | None = None) -> None:
        """Look after a folder.

        Args:
            folder: It need not exist.
            processes: Who takes part; every one of them makes this object and calls its methods together.
            keep: How many of the newest stay.
            keep_every: Those whose step is a multiple stay, too.
        """
        self.folder = folder
        self.protected: set[int] = set()
        """Steps whose checkpoints stay whatever their age."""
        self._processes, self._keep, self._keep_every = processes, keep, keep_every
        # Beside the training's own: its collectives must not meet those of a checkpoint that is still being written.
        # A large model takes its time to be written.
        self._group: Any = distributed.new_group(backend="gloo", timeout=PATIENCE) if processes.count > 1 else None
        self._saving: Future[Any] | None = None
        self._finished = threading.Event()
        self._failure: BaseException | None = None

    def steps(self) -> list[int]:
        """Return the steps that have a finished checkpoint, oldest first."""
        return sorted(int(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdigit() and path.is_dir())

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint, whatever the width of its number; it may not exist yet."""
        named = [path for path in self.folder.glob(f"*{step}") if path.name.isdigit() and int(path.name) == step]
        return named[0] if named else self.folder / f"{step:06d}"

    def newest(self) -> Path | None:
        """Return the newest finished checkpoint."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def save(
        self,
        step: int,
        tensors: dict[str, Tensor],
        plain: dict[str, Any],
        samples: dict[str, Any],
        save_results: Callable[[Path], None] | None,
    ) -> None:
        """Begin to write a checkpoint; training may go on at once.

        Args:
            step: Optimiser steps done.
            tensors: What is restored, sharded or whole.
            plain: Plain values (JSON) that are restored, `identity` among them.
            samples: `Batch.state` of this process.
            save_results: Writes loadable results into a folder; called by the main process alone, before this returns.

        Raises:
            UserError: It cannot be written, or the one before could not be; the older ones stay.
        """
        self.wait()
        unfinished = self.folder / ".unfinished"
        with _said_plainly(self.folder):
            if self._processes.main:
                shutil.rmtree(unfinished, ignore_errors=True)
                (unfinished / "state").mkdir(parents=True)
                if save_results is not None:
                    save_results(unfinished)
            self._processes.wait()
            (unfinished / f"samples-{self._processes.rank:05d}.json").write_text(json.dumps(samples))
            self._processes.wait()
            self._finished.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a single process has no others to save with
                future = async_save(
                    tensors,
                    storage_writer=HuggingFaceStorageWriter(str(unfinished / "state"), save_distributed=True),
                    process_group=self._group,
                    no_dist=self._group is None,
                )
        assert isinstance(future, Future)
        self._saving = future
        future.add_done_callback(lambda done: self._finish(done, unfinished, step, plain))

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is there, in all processes.

        Raises:
            UserError: It could not be written.
        """
        if self._saving is not None:
            self._finished.wait()
            self._saving = None
            self._processes.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            shutil.rmtree(self.folder / ".unfinished", ignore_errors=True)
            with _said_plainly(self.folder):
                raise failure

    def settle(self) -> None:
        """Give a checkpoint that is being written a minute, where a run ends by an error; other processes may be gone."""
        if self._saving is not None and self._finished.wait(60) and self._failure is not None:
            shutil.rmtree(self.folder / ".unfinished", ignore_errors=True)

    def restore(self, tensors: dict[str, Tensor], identity: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Load the newest good checkpoint in place; damaged ones are passed over, aloud.

        Args:
            tensors: Named as when it was saved; the number of processes may be another.
            identity: Of this run; see `Objective.identity`.

        Returns:
            The plain values, `step` among them, and the merged states of the samples; `{"step": 0}` and nothing where
            there is no checkpoint at all.

        Raises:
            UserError: The checkpoint belongs to another run, or there are some and none can be read.
        """
        steps = self._processes.share(self.steps())
        for step in reversed(steps):
            checkpoint = self.path(step)
            damage = self._processes.share(_damage(checkpoint) if self._processes.main else None)
            if damage is None:
                plain = json.loads((checkpoint / _STATE_FILE).read_text())
                _compare(checkpoint, plain["identity"], json.loads(json.dumps(identity)))
                samples = merge_states(json.loads(path.read_text()) for path in checkpoint.glob("samples-*.json"))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    load_sharded(
                        tensors,
                        storage_reader=HuggingFaceStorageReader(str(checkpoint / "state")),
                        no_dist=self._group is None,
                        process_group=self._group,
                    )
                return plain, samples
            if self._processes.main:
                log.warning("%s is passed over: %s", checkpoint, damage)
        if steps:
            raise UserError(
                f"None of the {len(steps)} checkpoints in {self.folder} can be read by this version (the newest: "
                f"{_damage(self.path(steps[-1]))}): start a new run."
            )
        return {"step": 0}, {}

    def point_at(self, name: str, step: int) -> None:
        """Point the link `name` at a step's checkpoint, where the file system has links."""
        temporary = self.folder / f".{name}.partial"
        try:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(self.path(step).name)
            os.replace(temporary, self.folder / name)
        except OSError as error:
            log.warning("there is no link %s in %s: %s", name, self.folder, error)

    def _finish(self, saving: Future[Any], unfinished: Path, step: int, plain: dict[str, Any]) -> None:
        """Name what is written; runs in the thread that wrote it, when all processes have written."""
        try:
            saving.result()
            if self._processes.main:
                state = plain | {"step": step, "crc32c": checksums(unfinished)}
                (unfinished / _STATE_FILE).write_text(json.dumps(state, indent=1))
                final = self.path(step)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(unfinished, final)
                self.point_at("last", step)
                self._prune()
        except BaseException as error:  # torch's own is no Exception; reported by whoever waits
            self._failure = error
        self._finished.set()

    def _prune(self) -> None:
        steps = self.steps()
        regular = {step for step in steps if self._keep_every and step % self._keep_every == 0}
        for step in set(steps) - set(steps[-self._keep :]) - regular - self.protected:
            shutil.rmtree(self.path(step))


def merge_states(states: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Join the `Batch.state` of all processes of a step into one that any number of processes can resume from."""
    return {share: state for states_of_process in states for share, state in states_of_process.items()}


class _said_plainly:  # noqa: N801 (a context, written like a function)
    """Turn what a disk or torch says of a checkpoint that cannot be written into a sentence."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | CheckpointException) or type(error).__name__ == "SafetensorError":
            shutil.rmtree(self._folder / ".unfinished", ignore_errors=True)
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"A checkpoint cannot be written to {self._folder} ({reason}); older ones stay.") from error


def _damage(checkpoint: Path) -> str | None:
    """Say what is wrong with a checkpoint's files; None where they are as they were written."""
    try:
        state = json.loads((checkpoint / _STATE_FILE).read_text())
        if "crc32c" not in state and "checksums" in state:
            log.warning("%s is of an earlier version, whose checksums are not read any more", checkpoint)
            return None
        sums = state["crc32c"]
    except FileNotFoundError:
        return f"{_STATE_FILE} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {_STATE_FILE} cannot be read ({error})"
    return first_damaged(checkpoint, sums)


def _compare(checkpoint: Path, saved: dict[str, Any], identity: dict[str, Any]) -> None:
    differing = sorted(key for key in saved.keys() | identity.keys() if saved.get(key) != identity.get(key))
    if "variant" in differing:
        raise UserError(
            f"{checkpoint} is of {saved['variant']}, this run is of {identity['variant']}: "
            "resume with the encoder of the checkpoint or start a new run."
        )
    if differing:
        changes = ", ".join(f"{key} {saved.get(key)} → {identity.get(key)}" for key in differing)
        raise UserError(
            f"{checkpoint} cannot be continued with other settings ({changes}): "
            "resume with those of the checkpoint or start a new run."
        )
