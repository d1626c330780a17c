"""Memory that stays as it is: over hundreds of rollouts in a real simulation, and thousands of requests to a server."""

from pathlib import Path

import psutil
import pytest
from forked_scripts import run_script
from lerobot_env_pixio import RobosuiteEnvConfig
from policy_servers import DESCRIBED, serving
from rich.console import Console
from runtime_policies import Counting, observation

from pixio_robot.deployment.remote.client import RemotePolicy
from pixio_robot.deployment.remote.server import PolicyServer
from pixio_robot.evaluation.checkpoints import find_checkpoint
from pixio_robot.evaluation.rollouts.evaluate import evaluate_policy

pytestmark = pytest.mark.slow

ROLLOUTS, REQUESTS = 500, 10_000


def megabytes() -> float:
    """Return what this process and those that it started have taken from the system, files aside, wherever it lies now.

    Not what is theirs alone: pages that forks share become that whenever the other lets go of them.
    """
    me = psutil.Process()
    taken = 0
    for process in (me, *me.children(recursive=True)):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        taken += sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:")))
    return taken / 1e3


def assert_flat(sizes: list[float]) -> None:
    """Compare the last tenth with the second, since the first is warming up; say both."""
    tenth = len(sizes) // 10
    before, after = (sum(part) / tenth for part in (sizes[tenth : 2 * tenth], sizes[-tenth:]))
    print(f"{before:.0f} MB before, {after:.0f} MB after")
    assert after == pytest.approx(before, rel=0.05)


def test_rollouts_leave_memory_as_it_is(tmp_path: Path) -> None:
    size = ("env.image_size=32", "env.camera_names=[agentview]")
    done = run_script(
        "train_policy.py",
        *(
            "trainer=debug",
            "encoder.weights=random",
            "demos.episodes=2",
            "demos.workers=1",
            "evaluation.episodes=0",
            *size,
        ),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    checkpoint = find_checkpoint(Path("latest"), tmp_path / "outputs", Console(quiet=True))
    sizes: list[float] = []
    evaluate_policy(
        checkpoint,
        RobosuiteEnvConfig(image_size=32, camera_names=["agentview"], episode_length=16),
        range(100_000, 100_000 + ROLLOUTS),
        workers=1,
        on_episode=lambda _: sizes.append(megabytes()),
    )
    assert len(sizes) == ROLLOUTS
    assert_flat(sizes)


def test_requests_leave_memory_as_it_is() -> None:
    sizes: list[float] = []
    policy = Counting(DESCRIBED)
    with serving(PolicyServer(policy)) as address, RemotePolicy(f"ws://{address}") as remote:
        for number in range(REQUESTS):
            remote.predict({key: value[None] for key, value in observation(number).values.items()}, number)
            policy.seen.clear()
            if number % 100 == 0:
                sizes.append(megabytes())
    assert_flat(sizes)
