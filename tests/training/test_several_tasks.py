"""One policy for two of Meta-World's tasks: collected, trained, evaluated, exported and driven."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from pixio_robot.demos import DemoStore
from pixio_robot.deployment.driving import drive_simulation
from pixio_robot.deployment.export.exporter import export_policy
from pixio_robot.deployment.runtime import ArtifactPolicy
from pixio_robot.encoders import EncoderConfig
from pixio_robot.environments import env_config_from
from pixio_robot.training import DemosConfig, EvaluationConfig, PolicyJob, TrainerConfig
from pixio_robot.training.job import run_policy_job


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["pixio_act", "pixio_diffusion", "pixio_bc"])
def test_the_whole_way_of_two_tasks(policy: str, tmp_path: Path) -> None:
    env = {"type": "pixio_metaworld", "task": "reach-v3,drawer-close-v3", "image_size": 32, "episode_length": 40}
    job = PolicyJob(
        encoder=EncoderConfig("pixio_tiny16", weights="random"),
        policy={"type": policy},
        env={**env, "episode_length": 150},
        demos=DemosConfig("scripted", episodes=4, workers=1),
        trainer=TrainerConfig(steps=2, augmented_copies=0, batch_size=8, warmup_steps=1, checkpoint_every=2),
        evaluation=EvaluationConfig(episodes=4, workers=1, videos=0),
        output_root=str(tmp_path),
    )
    console = Console(file=io.StringIO(), width=300)
    record = run_policy_job(job, console=console, run="two")
    assert record is not None
    assert [count for _, count in record.tasks.values()] == [2, 2]
    (store,) = (tmp_path / "demos").glob("*.zarr")
    demos = DemoStore.open(store)
    assert demos.episode_tasks == list(record.tasks) * 2
    checkpoint = tmp_path / "train_policy" / "two" / "checkpoints" / "last" / "pretrained_model"
    export_policy(checkpoint, demos, tmp_path / "policy.pt")
    driven = drive_simulation(
        ArtifactPolicy(tmp_path / "policy.pt"),
        env_config_from(job.env),
        job.evaluation.seeds(),
        mode="synchronous",
        realtime=False,
        name="",
        rate=None,
        dry_run=False,
        console=console,
    )
    assert driven is not None
    for ours, theirs in zip(driven.episodes, record.episodes, strict=True):
        assert (ours.seed, ours.task, ours.success, ours.steps) == (
            theirs.seed,
            theirs.task,
            theirs.success,
            theirs.steps,
        )
        assert ours.total_reward == pytest.approx(theirs.total_reward, rel=1e-2)
