"""A policy drives a robot: what `scripts/run_policy.py` does, for both kinds of robots."""

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lerobot.envs import EnvConfig
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.versions import software_versions
from pixio_robot.deployment.config import Caution
from pixio_robot.deployment.rehearsal import Rehearsal
from pixio_robot.deployment.robots.lerobot_robot import LeRobotRobot, make_robot
from pixio_robot.deployment.robots.simulated import SimulatedRobot
from pixio_robot.deployment.runtime import (
    ArtifactPolicy,
    ChunkPolicy,
    Clock,
    Controller,
    Limits,
    LockStepClock,
    WallClock,
    check_robot,
    control_rate,
    guarded,
    run_episode,
    task_number,
)
from pixio_robot.environments import describe_env
from pixio_robot.evaluation.record import Episode, EvaluationRecord
from pixio_robot.reports.videos import write_rollout_video


def open_policy(
    artifact: str | None, server: str | None, device: str, token_file: str | None, certificates: str | None
) -> ChunkPolicy:
    """Return a policy of this computer, or of a server.

    Args:
        artifact: A file; or
        server: `ws://` or `wss://` of `scripts/serve_policy.py`.
        device: Where the artifact runs.
        token_file: Holds the server's token.
        certificates: What a `wss://` server's certificate is checked against.

    Raises:
        UserError: Not exactly one of both is given, or it cannot be opened.
    """
    if artifact is not None and server is None:
        return ArtifactPolicy(Path(artifact), device)
    if server is not None and artifact is None:
        from pixio_robot.deployment.remote.client import RemotePolicy  # the extra `remote`
        from pixio_robot.deployment.remote.protocol import read_token

        return RemotePolicy(server, read_token(token_file), certificates)
    raise UserError("Give either artifact=<file> or server=ws://<host>:<port>.")


def drive_simulation(
    policy: ChunkPolicy,
    env_config: EnvConfig,
    seeds: Sequence[int],
    *,
    mode: str,
    realtime: bool,
    name: str,
    rate: float | None,
    dry_run: bool,
    console: Console,
    steps: int | None = None,
    videos: Path | None = None,
) -> EvaluationRecord | None:
    """Let a policy drive a simulated robot, one episode for each seed.

    Args:
        policy: The policy.
        env_config: The simulated task.
        seeds: Of the episodes, as in evaluation.
        mode: See `pixio_robot.deployment.runtime.modes`.
        realtime: Whether to keep the control rate; otherwise inference takes no simulated time.
        name: Of the artifact, for the record.
        rate: Control rate in Hz, where the artifact does not say it.
        dry_run: Show the first command, and simulate nothing.
        console: Where episodes are shown.
        steps: Control periods of an episode at most; None: as many as the task allows.
        videos: Folder for a video of each episode, beside which the record will be; None makes none.

    Returns:
        The episodes, as evaluation records them; None after a dry run.

    Raises:
        UserError: Policy, task and mode do not go together; nothing was sent.
    """
    if mode == "asynchronous" and not realtime:
        raise UserError(
            "With realtime=false no time passes during inference, so mode=asynchronous has nothing to hide: set realtime=true."
        )
    started = time.perf_counter()
    clock = WallClock() if realtime else LockStepClock()
    controller = Controller(policy, mode, clock, rate)
    if controller.rate != env_config.fps:
        raise UserError(
            f"The policy acts at {controller.rate:g} Hz, the simulated task runs at {env_config.fps} Hz: set "
            f"env.fps={controller.rate:g}."
        )
    robot = SimulatedRobot(env_config)
    episodes = []
    try:
        check_robot(controller, robot)
        for seed in seeds:
            start = time.perf_counter()
            robot.reset(seed, keep_frames=videos is not None)
            if dry_run:
                rehearsal = Rehearsal(controller.limits)
                run_episode(robot, controller, clock, 1, on_step=rehearsal, seed=seed, task=robot.task)
                rehearsal.show(console, controller.report)
                return None
            # Periods in which nothing is sent take none of the episode's own steps.
            run_episode(robot, controller, clock, steps or 2 * robot.max_steps, seed=seed, task=robot.task)
            seconds = time.perf_counter() - start
            task = robot.task if policy.metadata["tasks"] else None
            outcome = "success" if robot.success else "failure"
            video = None
            if videos is not None:
                videos.mkdir(parents=True, exist_ok=True)
                video = f"{videos.name}/{seed}_{outcome}.mp4"
                write_rollout_video(videos.parent / video, robot.frames, env_config.fps)
            episodes.append(Episode(seed, robot.success, robot.steps, robot.total_reward, seconds, video, task=task))
            console.print(f"seed {seed}: {outcome} after {robot.steps} steps, {seconds:.1f} s", highlight=False)
    finally:
        robot.close()
    console.print(controller.report.summary(), highlight=False, soft_wrap=True)
    return EvaluationRecord(
        episodes=tuple(episodes),
        env=describe_env(env_config),
        render_profile=getattr(env_config, "render_profile", None),
        versions=software_versions(),
        checkpoint=name,
        seconds=time.perf_counter() - started,
        workers=1,
    )


def drive_robot(
    policy: ChunkPolicy,
    description: Mapping[str, Any],
    *,
    cameras: Mapping[str, str],
    mode: str,
    seconds: float,
    rate: float | None,
    dry_run: bool,
    console: Console,
    caution: Caution | None = None,
    clock: Clock | None = None,
    seed: int | None = None,
    task: str | None = None,
) -> bool:
    """Let a policy drive a robot of LeRobot's.

    Args:
        policy: The policy.
        description: `type` and fields of the robot's config.
        cameras: The robot's name of a camera by the artifact's, where they differ.
        mode: See `pixio_robot.deployment.runtime.modes`.
        seconds: For how long.
        rate: Control rate in Hz, where the artifact does not say it.
        dry_run: Read the robot and print what would be sent, but send nothing.
        console: Where that is shown.
        caution: How far the policy is trusted; None takes the defaults.
        clock: What keeps the rate; None is real time.
        seed: What a policy that samples starts from; None draws one, and says it.
        task: What a policy of several tasks is to do.

    Returns:
        Whether the robot may be driven so, after a dry run; else True.

    Raises:
        UserError: The robot is unknown, cannot be connected, or does not fit the artifact: nothing was sent. Or its
            driver failed, or it held for most of the time.
    """
    caution, clock = caution or Caution(), clock or WallClock()
    task_number(policy.metadata, task)  # before anything is connected
    robot = LeRobotRobot(make_robot(description), policy.metadata, cameras, caution.names)
    pace = control_rate(policy.metadata, rate)
    limits = Limits(
        policy.metadata,
        state_names=robot.state_names,
        action_names=robot.action_names,
        action_space=caution.action_space,
        step_factor=caution.step_factor,
        step=caution.largest_step,
        ramp_steps=round(caution.ramp * pace),
    )
    controller = Controller(policy, mode, clock, rate, limits=limits)
    check_robot(controller, robot)
    for what, names in (("observation.state", robot.state_names), ("action", robot.action_names)):
        console.print(f"{what}: {', '.join(names)}", highlight=False, soft_wrap=True)
    rehearsal = Rehearsal(limits) if dry_run else None
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    if policy.metadata["noise"] is not None:
        console.print(f"noise_seed={seed}", highlight=False)
    with guarded(robot, controller, caution.call_timeout) as guard:
        run_episode(guard, controller, clock, seconds=seconds, on_step=rehearsal, seed=seed, task=task)
    report = controller.report
    console.print(report.summary(), highlight=False, soft_wrap=True)
    if rehearsal is not None:
        return rehearsal.show(console, report)
    if 2 * report.troubled > report.steps:
        raise UserError(
            f"The robot held in {report.troubled} of {report.steps} control periods, so the policy did not drive it: look at "
            "what it held for, above."
        )
    return True


def compare_episodes(record: EvaluationRecord, other: Path) -> str:
    """Say how two records of the same seeds differ, in one line.

    Raises:
        UserError: There is no such record, or it lacks a seed.
    """
    before = {episode.seed: episode for episode in EvaluationRecord.load(other).episodes}
    missing = [episode.seed for episode in record.episodes if episode.seed not in before]
    if missing:
        raise UserError(f"{other} has no episode with seed {missing[0]}: measure the same seeds.")
    pairs = [(before[episode.seed], episode) for episode in record.episodes]
    alike = [(one, two) for one, two in pairs if one.success == two.success]
    same_steps = sum(one.steps == two.steps for one, two in alike)
    points = 100 * sum(two.success - one.success for one, two in pairs) / len(pairs)
    return (
        f"beside {other}: {len(alike)} of {len(pairs)} episodes end alike, {same_steps} of them after the same number "
        f"of steps; {points:+.1f} points"
    )
