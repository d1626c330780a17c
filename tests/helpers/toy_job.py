"""The main job on the toy environment of the evaluation's tests, importable from spawned processes."""

from pathlib import Path

# The toy environment must be importable here and in worker processes, which inherit this path.
import toy_plugin  # noqa: F401 (registers the environment)
from toy_run import CAMERAS, POLICY, make_store

from pixio_robot.demos import DemoStore
from pixio_robot.encoders import EncoderConfig
from pixio_robot.training import DemosConfig, EvaluationConfig, PolicyJob, TrainerConfig


def make_demonstrations(path: Path) -> DemoStore:
    """Write demonstrations that fit the toy environment."""
    return make_store(path, sizes=dict.fromkeys(CAMERAS, (32, 32)), state_size=2, action_size=2)


def toy_job(store: Path, output_root: Path) -> PolicyJob:
    """Four steps, with an evaluation after every second."""
    return PolicyJob(
        encoder=EncoderConfig("pixio_tiny16", weights="random"),
        policy=POLICY,
        env={"type": "pixio_toy", "episode_length": 4},
        demos=DemosConfig("store", path=str(store)),
        trainer=TrainerConfig(
            steps=4, augmented_copies=0, batch_size=4, warmup_steps=1, checkpoint_every=4, log_every=1, evaluate_every=2
        ),
        evaluation=EvaluationConfig(episodes=2, workers=1, videos=0, episodes_during_training=3),
        output_root=str(output_root),
    )
