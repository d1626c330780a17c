"""Robot learning by CortexBench's protocol: policies cloned on a frozen encoder, and how often they solve their task.

    demonstrations (made once) ─► frozen embeddings (once for an encoder) ─► pixio_bc, one for each task and seed ─► rollouts

Every policy is a run of the package's own job in the cell's folder, so that an interrupted cell goes on where it was.
"""

import dataclasses
import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.console import Console

from pixio_robot.common.settings import plain
from pixio_robot.common.statistics import bootstrap_interval
from pixio_robot.common.storage.files import write_json
from pixio_robot.common.storage.json_lines import read_lines
from pixio_robot.demos import DemoStore
from pixio_robot.downstream.config import Data
from pixio_robot.downstream.robot_learning.config import RobotLearningProtocol
from pixio_robot.downstream.robot_learning.open_loop import explained_actions
from pixio_robot.downstream.robot_learning.suite import FromDemonstrations, Suite
from pixio_robot.downstream.robot_learning.suites import PUBLISHED, suites
from pixio_robot.downstream.task import CellResult, Metric, build_encoder
from pixio_robot.encoders import EncoderConfig
from pixio_robot.evaluation.checkpoints import MODEL_FOLDER
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.reports.charts import save_picture
from pixio_robot.training.config import EvaluationConfig, PolicyJob, TrainerConfig
from pixio_robot.training.job import RUNS, run_policy_job

_MOST_RETURN = 1000.0  # of an episode of the control suite
_NO_CLIPPING = 1e9
_OPEN_LOOP = "open_loop.json"
_FRAMES = 6  # of a rollout's strip


def robot_learning_tasks(protocol: RobotLearningProtocol, data: Data, folder: Path) -> "list[RobotLearningTask]":
    """Return a task for each suite.

    Args:
        protocol: How policies are trained and measured.
        data: Where experts and expert files lie.
        folder: Keeps demonstrations, the same for all encoders.

    Raises:
        UserError: A suite is asked for whose data is not named.
    """
    return [RobotLearningTask(suite, folder) for suite in suites(protocol, data)]


class RobotLearningTask:
    """One suite, as a task of the comparison."""

    group = "robot_learning"
    baselines: Sequence[str] = ()

    def __init__(self, suite: Suite, folder: Path) -> None:
        """Take a suite; demonstrations are kept in the folder."""
        self._suite, self._protocol, self._folder = suite, suite.protocol, folder
        self.name = f"robot_learning-{suite.name}"
        self.title = f"Robot learning, {suite.title}"
        what = {"success": "success", "return": "return, of 1000", "held out": "actions explained"}[suite.score]
        self.metrics: Sequence[Metric] = (
            Metric("final", f"{what}, final", "%", 100.0, higher_is_better=True),
            Metric("highest", f"{what}, highest", "%", 100.0, higher_is_better=True),
        )

    def identity(self) -> dict[str, Any]:
        """Return the suite and how its policies are trained and measured."""
        others = ("suites", "metaworld", "adroit", "dmc", "trifinger", "workers")
        protocol = {name: value for name, value in plain(self._protocol).items() if name not in others}
        return protocol | {
            "suite": self._suite.name,
            "settings": plain(self._suite.settings),
            "data": self._suite.sources(),
        }

    def check(self, encoder: EncoderConfig) -> None:
        """Look that the suite's data is there, and that the encoder takes its frames.

        Raises:
            UserError: They are not; or it does not.
        """
        self._suite.check()
        build_encoder(self._resized(encoder)).grid(self._protocol.image_size, self._protocol.image_size)

    def measure(self, encoder: EncoderConfig | str, folder: Path, console: Console) -> CellResult:
        """Train and roll out a policy for each task and seed.

        Args:
            encoder: The encoder; it stays frozen.
            folder: Of the cell; has the runs.
            console: Where progress is shown.
        """
        assert isinstance(encoder, EncoderConfig)
        runs: dict[str, list[_Measured]] = {}
        for task in self._suite.tasks:
            store, env = self._suite.opened(task, self._folder / "demonstrations", console)
            runs[task] = []
            for seed in self._protocol.seeds:
                measured = self._policy(self._resized(encoder), task, store, env, seed, folder)
                runs[task].append(measured)
                console.print(f"{task}, seed {seed}: {measured.summary()}", highlight=False)
        shutil.rmtree(folder / "features", ignore_errors=True)  # tokens, of no use to other cells
        return self._result(runs, folder)

    def _resized(self, encoder: EncoderConfig) -> EncoderConfig:
        """Return the encoder, frozen, with the size to which it resizes frames that no encoder takes as they are."""
        side = encoder.image_size
        if isinstance(self._suite, FromDemonstrations) and side is None:
            side = self._suite.settings.image_size
        return dataclasses.replace(encoder, mode="frozen", image_size=side)

    def _policy(
        self, encoder: EncoderConfig, task: str, store: DemoStore, env: dict[str, Any], seed: int, folder: Path
    ) -> "_Measured":
        """Train and measure one policy, or read what an earlier call measured."""
        run = f"{task}-{seed}"
        run_dir = folder / RUNS / run
        found = _Measured.read(run_dir, self._suite.score)
        if found is None:
            quiet = Console(quiet=True)
            run_policy_job(self._job(encoder, task, store, env, seed, folder), run=run, resume="auto", console=quiet)
            if isinstance(self._suite, FromDemonstrations):
                held_out = self._suite.held_out(task, self._folder / "demonstrations", quiet)
                mean_action = np.asarray(store.statistics()["action"]["mean"])
                scores = explained_actions(_last_checkpoint(run_dir), held_out, mean_action)
                write_json(run_dir / _OPEN_LOOP, {"scores": scores})
            found = _Measured.read(run_dir, self._suite.score)
        assert found is not None
        return found

    def _job(
        self, encoder: EncoderConfig, task: str, store: DemoStore, env: dict[str, Any], seed: int, folder: Path
    ) -> PolicyJob:
        """Return the run of a policy: CortexBench's head, loss, optimiser and number of epochs."""
        protocol, settings, recipe = self._protocol, self._suite.settings, self._suite.recipe(task)
        rollouts = 0 if isinstance(self._suite, FromDemonstrations) else settings.rollouts
        windows = int(store.episode_ends[: settings.demonstrations][-1])
        per_epoch = max(windows // recipe.batch_size, 1)
        steps, every = recipe.epochs * per_epoch, protocol.evaluate_every * per_epoch if rollouts else 0
        return PolicyJob(
            encoder=encoder,
            policy={
                "type": "pixio_bc",
                "n_obs_steps": recipe.history,
                "chunk_size": 1,
                "n_action_steps": 1,
                "neck": "cls_mean",
                "input_norm": "batch",
                "hidden_width": recipe.hidden_width,
                "hidden_layers": recipe.hidden_layers,
                "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "IDENTITY", "ACTION": "IDENTITY"},
            },
            env=env,
            demos=self._suite.demos(store),
            trainer=TrainerConfig(
                steps=steps,
                batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                schedule="constant",
                warmup_steps=0,
                weight_decay=0.0,
                gradient_clip=_NO_CLIPPING,
                average_decay=0.0,
                checkpoint_every=every or steps,
                keep_checkpoints=1,
                evaluate_every=every,
                augmented_copies=0,
            ),
            evaluation=EvaluationConfig(
                episodes=rollouts,
                episodes_during_training=rollouts,
                workers=protocol.workers,
                videos=1,
                held_out=0.0,  # the protocol says what is trained on
                checkpoint="last",
            ),
            seed=seed,
            output_root=str(folder),
        )

    def _result(self, runs: Mapping[str, "list[_Measured]"], folder: Path) -> CellResult:
        by_seed = list(zip(*runs.values()))  # (seeds, tasks)
        final = [statistics.fmean(run.final for run in of_seed) for of_seed in by_seed]
        pictures = {
            f"{task}: a rollout of the last policy": _strip(folder, f"{task}-{seed}")
            for task in self._suite.tasks
            for seed in self._protocol.seeds[:1]
        }
        return CellResult(
            metrics={
                "final": final,
                "highest": [statistics.fmean(run.highest for run in of_seed) for of_seed in by_seed],
            },
            intervals={"final": _interval(runs)},
            pictures={caption: name for caption, name in pictures.items() if name is not None},
            record={
                "tasks": {
                    task: {
                        str(seed): {"final": run.final, "highest": run.highest, "evaluations": run.evaluations}
                        for seed, run in zip(self._protocol.seeds, measured, strict=True)
                    }
                    for task, measured in runs.items()
                },
                "published": {encoder: scores[self._suite.name] for encoder, scores in PUBLISHED.items()},
            },
        )


@dataclasses.dataclass(frozen=True)
class _Measured:
    """What a run scored: successes, returns as shares of the most that can be had, or shares of actions explained.

    Attributes:
        episodes: Score of each episode of the final evaluation.
        evaluations: Mean score of each evaluation during training, by step.
    """

    episodes: list[float]
    evaluations: dict[str, float]

    @classmethod
    def read(cls, run_dir: Path, score: str) -> "_Measured | None":
        """Read a run's results; None where it has not come to its end."""
        by_return, open_loop = score == "return", run_dir / _OPEN_LOOP
        if score == "held out":
            return cls(json.loads(open_loop.read_text())["scores"], {}) if open_loop.exists() else None
        record_file = run_dir / "evaluation" / "evaluation.json"
        if not (run_dir / "report.html").exists() or not record_file.exists():
            return None
        record = EvaluationRecord.load(record_file)
        scores = [one.total_reward / _MOST_RETURN if by_return else float(one.success) for one in record.episodes]
        lines = [line for line in read_lines(run_dir / "log.jsonl") if "success_rate" in line]
        evaluations = {
            str(line["step"]): line["mean_return"] / _MOST_RETURN if by_return else line["success_rate"]
            for line in lines
        }
        return cls(scores, evaluations)

    @property
    def final(self) -> float:
        """Mean score of the last policy, on episodes that nothing was chosen by."""
        return statistics.fmean(self.episodes)

    @property
    def highest(self) -> float:
        """Highest mean score of the evaluations during training, or the final one where there were none."""
        return max(self.evaluations.values(), default=self.final)

    def summary(self) -> str:
        """Say it for people."""
        return f"{100 * self.final:.0f} % at the end, {100 * self.highest:.0f} % at the highest evaluation"


def _interval(runs: Mapping[str, Sequence[_Measured]]) -> tuple[float, float]:
    """Return the interval of the final mean over tasks: episodes within seeds, of which the same tasks are always there.

    How tasks differ from each other is no uncertainty of their mean: each episode counts by how far it is from the mean of
    its task.
    """
    mean = statistics.fmean(run.final for of_task in runs.values() for run in of_task)
    by_seed: list[list[float]] = [[] for _ in next(iter(runs.values()))]
    for of_task in runs.values():
        task_mean = statistics.fmean(run.final for run in of_task)
        for scores, run in zip(by_seed, of_task, strict=True):
            scores.extend(mean + score - task_mean for score in run.episodes)
    low, high = bootstrap_interval(by_seed)
    worst = min(score for of_task in runs.values() for run in of_task for score in run.episodes)
    return max(low, min(worst, 0.0)), min(high, 1.0)


def _last_checkpoint(run_dir: Path) -> Path:
    """Return the policy of a finished run."""
    return max((run_dir / "checkpoints").glob(f"[0-9]*/{MODEL_FOLDER}"))


def _strip(folder: Path, run: str) -> str | None:
    """Write some frames of a run's first video side by side; return the file's name in the folder."""
    videos = sorted((folder / RUNS / run / "evaluation" / "videos").glob("*.mp4"))
    if not videos:
        return None
    with av.open(str(videos[0])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int)
    name = f"{run}.png"
    save_picture(np.concatenate([frames[index] for index in chosen], axis=1), folder / name)
    return name
