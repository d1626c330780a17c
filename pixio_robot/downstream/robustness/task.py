"""Success of policies on an encoder, as a downstream task.

Every row's policy is trained by `run_policy_job` and rolled out on the same evaluation seeds under every change of looks, so
that two encoders are compared episode by episode.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import plain
from pixio_robot.common.statistics import bootstrap_interval
from pixio_robot.downstream.robustness.config import RobustnessProtocol
from pixio_robot.downstream.task import CellResult, Metric, build_encoder
from pixio_robot.encoders import EncoderConfig
from pixio_robot.environments import env_config_from
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.evaluation.rollouts.evaluate import evaluate_policy
from pixio_robot.training.config import DemosConfig, PolicyJob
from pixio_robot.training.job import run_policy_job

NOMINAL = "none"
_CHANGED = "mean_changed"
# What changes no result.
_FREE = ("workers", "videos")


class RobustnessTask:
    """One environment and number of demonstrations."""

    group = "robustness"
    baselines: Sequence[str] = ()

    def __init__(
        self,
        protocol: RobustnessProtocol,
        policy: Mapping[str, Any],
        env: Mapping[str, Any],
        env_name: str,
        demonstrations: int,
        output_root: Path,
    ) -> None:
        """Compare policies in an environment.

        Args:
            protocol: How.
            policy: `type` and fields of the policy.
            env: `type` and fields of the environment.
            env_name: Its choice in configs/env.
            demonstrations: How many to train from.
            output_root: Where runs, demonstrations and cached features go.

        Raises:
            UserError: A perturbation is unknown, which must not cost a training; or nothing would be measured.
        """
        if not protocol.evaluation.episodes:
            raise UserError("protocol.robustness.evaluation.episodes=0 measures nothing: set it above 0.")
        self._conditions = [NOMINAL, *(name for name in protocol.perturbations if name != NOMINAL)]
        for condition in self._conditions:
            env_config_from({**env, "perturbation": condition})
        self._protocol, self._policy, self._env = protocol, dict(policy), dict(env)
        self._demonstrations, self._output_root = demonstrations, output_root
        self.name = f"robustness-{env_name}-{demonstrations}"
        self.title = f"Policies from {demonstrations} demonstrations of {env_name}"
        named = {NOMINAL: "nominal"} | {name: name.replace("_", " ") for name in self._conditions[1:]}
        columns = [_CHANGED, *self._conditions] if self._conditions[1:] else self._conditions
        self.metrics: Sequence[Metric] = [
            Metric(name, named.get(name, "mean of the changed"), "%", 100, higher_is_better=True) for name in columns
        ]

    def identity(self) -> dict[str, Any]:
        """Return everything that decides a policy and how it is measured."""
        protocol = plain(self._protocol)
        evaluation = {name: value for name, value in protocol["evaluation"].items() if name not in _FREE}
        return {
            "policy": self._policy,
            "env": self._env,
            "demonstrations": self._demonstrations,
            "conditions": self._conditions,
            "seeds": list(self._protocol.seeds),
            "trainer": protocol["trainer"],
            "evaluation": evaluation,
        }

    def check(self, encoder: EncoderConfig) -> None:
        """Refuse an encoder that camera frames do not fit."""
        side = self._env.get("image_size")
        if isinstance(side, int):
            build_encoder(encoder).grid(side, side)

    def measure(self, encoder: EncoderConfig | str, folder: Path, console: Console) -> CellResult:
        """Train and roll out what is missing of a cell."""
        assert isinstance(encoder, EncoderConfig)  # there are no baselines
        successes = {condition: list[list[bool]]() for condition in self._conditions}
        for seed in self._protocol.seeds:
            for condition, record in self._records(encoder, seed, folder, console).items():
                successes[condition].append([episode.success for episode in record.episodes])
        metrics = {name: [statistics.mean(map(float, one)) for one in by_seed] for name, by_seed in successes.items()}
        intervals = {name: bootstrap_interval(by_seed) for name, by_seed in successes.items()}
        if self._conditions[1:]:
            changed = [
                [success for condition in self._conditions[1:] for success in successes[condition][number]]
                for number in range(len(self._protocol.seeds))
            ]
            metrics[_CHANGED] = [statistics.mean(map(float, one)) for one in changed]
            intervals[_CHANGED] = bootstrap_interval(changed)
            successes[_CHANGED] = changed
        return CellResult(metrics, intervals, record={"successes": successes})

    def _records(
        self, encoder: EncoderConfig, seed: int, folder: Path, console: Console
    ) -> dict[str, EvaluationRecord]:
        protocol = self._protocol
        files = {condition: folder / f"seed_{seed}" / f"{condition}.json" for condition in self._conditions}
        if not files[NOMINAL].exists():
            job = PolicyJob(
                encoder=encoder,
                policy=self._policy,
                env=self._env,
                demos=DemosConfig(source="scripted", episodes=self._demonstrations),
                trainer=protocol.trainer,
                evaluation=protocol.evaluation,
                seed=seed,
                output_root=str(self._output_root),
            )
            nominal = run_policy_job(job, console=console)
            assert nominal is not None  # there are episodes to evaluate
            nominal.save(files[NOMINAL])
        records = {NOMINAL: EvaluationRecord.load(files[NOMINAL])}
        for condition in self._conditions[1:]:
            if not files[condition].exists():
                record = evaluate_policy(
                    Path(records[NOMINAL].checkpoint),
                    env_config_from({**self._env, "perturbation": condition}),
                    [episode.seed for episode in records[NOMINAL].episodes],
                    workers=protocol.evaluation.workers,
                    console=console,
                )
                record.save(files[condition])
                console.print(f"{condition}: {record.summary()}", highlight=False)
            records[condition] = EvaluationRecord.load(files[condition])
        return records


def robustness_tasks(
    protocol: RobustnessProtocol, policy: Mapping[str, Any], envs: Mapping[str, Mapping[str, Any]], output_root: Path
) -> list[RobustnessTask]:
    """Return one task for each environment and number of demonstrations.

    Args:
        protocol: How.
        policy: `type` and fields of the policy.
        envs: `type` and fields of each environment, by its choice in configs/env.
        output_root: Where runs, demonstrations and cached features go.
    """
    return [
        RobustnessTask(protocol, policy, env, name, count, output_root)
        for name, env in envs.items()
        for count in protocol.demonstrations
    ]
