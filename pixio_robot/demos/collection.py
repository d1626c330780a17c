"""Collects demonstrations of a scripted expert into a store, on several cores."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from pixio_robot.demos.progress import progress_bar
from pixio_robot.demos.recording import Demonstration, ExpertEnvConfig
from pixio_robot.demos.store import DemoStore, Feature
from pixio_robot.demos.workers import DemonstrationWorkers
from pixio_robot.errors import UserError

# Evaluation uses the seeds from here on: what a policy is measured on must not be what it was shown.
FIRST_EVALUATION_SEED = 100_000

# An expert that fails so often in a row does not solve the task.
_MAX_FAILURES_IN_A_ROW = 20
_DISTRIBUTIONS = ("pixio-robot", "lerobot", "gymnasium", "mujoco", "robosuite", "numpy", "zarr")
# Fields of LeRobot's base configuration that follow from others or say nothing about the data.
_DERIVED_FIELDS = {"features", "features_map", "max_parallel_tasks", "disable_env_checker"}


def collect(
    env_config: ExpertEnvConfig,
    store_path: str | Path,
    n_episodes: int,
    *,
    first_seed: int = 0,
    workers: int | None = None,
    console: Console | None = None,
) -> DemoStore:
    """Bring a store to a number of successful demonstrations, reusing those that it has.

    Episodes are tried with the seeds `first_seed`, `first_seed` + 1, …; those in which the expert fails are dropped. They
    are stored in the order of their seeds, so the store is the same for any number of workers, and however often the
    collection was interrupted.

    Args:
        env_config: Environment and expert.
        store_path: Folder of the store; made where it is absent.
        n_episodes: Number of demonstrations wanted.
        first_seed: The first seed to try.
        workers: Number of processes: all available cores by default.
        console: Where to show messages and progress: standard error by default.

    Returns:
        The store, with at least `n_episodes` episodes.

    Raises:
        UserError: The store holds demonstrations of another environment or first seed, or is damaged, or in use; the
            environment cannot run; the expert does not solve the task; or the disk is full. Finished episodes are kept.
    """
    console = console or Console(stderr=True)
    attributes = {
        "fps": env_config.fps,
        "env": describe_env(env_config),
        "first_seed": first_seed,
        "versions": software_versions(),
    }
    store = _open_matching(Path(store_path), attributes)
    n_reused = store.num_episodes if store else 0
    if n_reused >= n_episodes:
        console.print(f"Reusing all {n_reused} demonstrations in {store_path} ({n_episodes} wanted).")
        assert store is not None
        return store
    if store is not None:
        console.print(f"Reusing {n_reused} demonstrations in {store_path}; collecting {n_episodes - n_reused} more.")
        store.begin_writing()

    next_seed = int(store.episode_seeds[-1]) + 1 if store is not None and n_reused else first_seed
    n_tried = 0
    try:
        with progress_bar("demonstrations", n_episodes - n_reused, console) as advance:
            for demonstration in _demonstrations(env_config, n_episodes - n_reused, next_seed, workers):
                n_tried += 1
                if not demonstration.success:
                    continue
                if store is None:
                    store = DemoStore.create(store_path, _features(demonstration), attributes)
                store.append_episode(
                    demonstration.data,
                    seed=demonstration.seed,
                    success=demonstration.success,
                    task=demonstration.task,
                )
                advance()
    except KeyboardInterrupt:
        n_kept = store.num_episodes if store is not None else 0
        console.print(f"Stopped with {n_kept} of {n_episodes} demonstrations in {store_path}; run again to go on.")
        raise
    finally:
        if store is not None:
            store.close()
    assert store is not None
    n_collected = store.num_episodes - n_reused
    console.print(
        f"Collected {n_collected} demonstrations into {store_path} (the expert failed on {n_tried - n_collected} of "
        f"{n_tried} seeds; those are not stored)."
    )
    return store


def describe_env(env_config: ExpertEnvConfig) -> dict[str, Any]:
    """Return what distinguishes an environment's data, as JSON values: its type and every field of its configuration."""
    assert dataclasses.is_dataclass(env_config)
    fields = {
        field.name: getattr(env_config, field.name)
        for field in dataclasses.fields(env_config)
        if field.name not in _DERIVED_FIELDS
    }
    return json.loads(json.dumps({"type": env_config.type, **fields}))


def software_versions() -> dict[str, str]:
    """Return the versions of what decides how demonstrations move and look."""
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _demonstrations(
    env_config: ExpertEnvConfig, n_successes: int, first_seed: int, workers: int | None
) -> Iterator[Demonstration]:
    """Yield the demonstrations of successive seeds, failed ones too, until enough of them succeeded."""
    waiting: dict[int, Demonstration] = {}
    next_to_start = next_to_yield = first_seed
    n_failures_in_a_row = 0
    with DemonstrationWorkers(env_config, min(workers or _available_cores(), n_successes)) as pool:
        while n_successes:
            # Never more than could still be needed, so that nothing is run in vain.
            n_promised = pool.num_busy + sum(demonstration.success for demonstration in waiting.values())
            if pool.has_idle and n_promised < n_successes:
                if next_to_start >= FIRST_EVALUATION_SEED:
                    raise UserError(
                        f"The seeds of demonstrations reached {FIRST_EVALUATION_SEED}, where those of evaluation begin: "
                        "start from a lower first_seed or ask for fewer episodes."
                    )
                pool.start(next_to_start)
                next_to_start += 1
                continue
            waiting |= {demonstration.seed: demonstration for demonstration in pool.finished()}
            while n_successes and next_to_yield in waiting:
                demonstration = waiting.pop(next_to_yield)
                next_to_yield += 1
                n_successes -= demonstration.success
                n_failures_in_a_row = 0 if demonstration.success else n_failures_in_a_row + 1
                if n_failures_in_a_row == _MAX_FAILURES_IN_A_ROW:
                    raise UserError(
                        f"The expert failed on {n_failures_in_a_row} seeds in a row, up to {demonstration.seed}: it does "
                        "not solve this task; check the task and the length of its episodes."
                    )
                yield demonstration


def _available_cores() -> int:
    return len(os.sched_getaffinity(0))


def _open_matching(path: Path, attributes: dict[str, Any]) -> DemoStore | None:
    """Open the store at a path if there is one, and refuse it if it holds something else."""
    if not path.exists():
        return None
    store = DemoStore.open(path)
    wanted = {**attributes["env"], "first_seed": attributes["first_seed"]}
    found = {**store.attributes.get("env", {}), "first_seed": store.attributes.get("first_seed")}
    differing = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if differing:
        differences = ", ".join(f"{name} {found.get(name)!r} (not {wanted.get(name)!r})" for name in differing)
        raise UserError(
            f"{path} holds demonstrations of another environment: {differences}; choose another path, or delete it to "
            "collect anew."
        )
    return store


def _features(demonstration: Demonstration) -> dict[str, Feature]:
    return {key: Feature(values.shape[1:], values.dtype.name) for key, values in demonstration.data.items()}
