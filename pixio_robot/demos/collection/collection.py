"""Collects demonstrations of a scripted expert into a store, on several cores."""

import hashlib
import json
import os
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from lerobot.envs import EnvConfig
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import progress_bar
from pixio_robot.common.storage.kept import only_one
from pixio_robot.common.versions import software_versions
from pixio_robot.common.workers import WorkerPool
from pixio_robot.demos.collection.recording import Demonstration, Expert, ExpertEnvConfig, record_demonstration
from pixio_robot.demos.store.codecs import LOSSLESS, check_codec
from pixio_robot.demos.store.layout import INTERVENTION, Feature
from pixio_robot.demos.store.store import DemoStore
from pixio_robot.environments import describe_env

# Evaluation uses the seeds from here on: what a policy is measured on must not be what it was shown.
FIRST_EVALUATION_SEED = 100_000

# Who demonstrates, where nobody said otherwise; and a policy that such an expert corrects.
SCRIPTED, CORRECTED = "scripted", "corrected"

type MakeExperts = Callable[[ExpertEnvConfig], Callable[[int], Expert]]

# An expert that fails so often in a row does not solve the task.
_MAX_FAILURES_IN_A_ROW = 20


def store_path_for(env_config: EnvConfig, folder: Path, expert: str = SCRIPTED) -> Path:
    """Name the store of an environment's demonstrations: by its task and a hash of everything that shapes them."""
    description = describe_env(env_config)
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]
    made_by = "" if expert == SCRIPTED else f"_{expert}"
    return folder / f"{description['type']}_{description['task']}_{digest}{made_by}.zarr"


def collect(
    env_config: EnvConfig,
    store_path: str | Path,
    n_episodes: int,
    *,
    first_seed: int = 0,
    workers: int | None = None,
    codec: str = LOSSLESS,
    console: Console | None = None,
    corrected: MakeExperts | None = None,
) -> DemoStore:
    """Bring a store to a number of successful demonstrations, reusing those that it has.

    Episodes are tried with the seeds `first_seed`, `first_seed` + 1, …; those in which the expert fails are
    dropped. They are stored in the order of their seeds, so the store is the same for any number of workers,
    and however often the collection was interrupted.

    Args:
        env_config: Environment and expert: a config of LeRobot's that also has `make_env()` and
            `make_expert(seed)`, see `recording.ExpertEnvConfig`.
        store_path: Folder of the store; made where it is absent.
        n_episodes: Number of demonstrations wanted.
        first_seed: The first seed to try.
        workers: Number of processes: all available cores by default.
        codec: How a new store keeps frames, see `DemoStore.create`.
        console: Where to show messages and progress: standard error by default.
        corrected: Makes, in each worker, what makes the demonstrator of a seed: a policy that an expert corrects. Its episodes
            may be added to a store of any demonstrations of the environment that records who acted.

    Returns:
        The store, with at least `n_episodes` episodes.

    Raises:
        UserError: The environment has no expert, cannot run, or crashes twice on a seed; the expert does not
            solve the task; the store has demonstrations of another environment or first seed, is damaged or
            in use; the codec is unknown or not installed; or the disk is full. Finished episodes are kept.
    """
    console = console or Console(stderr=True)
    check_codec(codec)
    attributes = store_attributes(env_config, first_seed, SCRIPTED if corrected is None else CORRECTED)
    path = Path(store_path)
    store = open_matching(path, attributes)
    if store is not None and store.num_episodes >= n_episodes:
        console.print(f"Reusing all {store.num_episodes} demonstrations in {store_path} ({n_episodes} wanted).")
        return store
    with only_one(path):
        store = open_matching(path, attributes)
        if store is not None and store.num_episodes >= n_episodes:
            return store  # another run was faster
        n_reused, next_seed = 0, first_seed
        if store is not None:
            store.begin_writing()
            n_reused = store.num_episodes
            next_seed = max(int(store.episode_seeds[-1]) + 1, first_seed) if n_reused else first_seed
            console.print(f"Reusing {n_reused} demonstrations in {store_path}; collecting the others.")
        n_missing = n_episodes - n_reused
        n_tried = 0
        try:
            with (
                progress_bar("demonstrations", n_missing, console) as advance,
                closing(demonstrations_of(env_config, n_missing, next_seed, workers, corrected)) as demonstrations,
            ):
                for demonstration in demonstrations:
                    n_tried += 1
                    if demonstration.success:
                        store = store or new_store(store_path, demonstration, attributes, codec)
                        append_demonstration(store, demonstration)
                        advance()
        except KeyboardInterrupt:
            n_kept = store.num_episodes if store is not None else 0
            console.print(f"{n_kept} of {n_episodes} demonstrations are in {store_path}; run again to go on.")
            raise
        finally:
            if store is not None:
                store.close()
        assert store is not None
        console.print(
            f"Collected {n_missing} demonstration{'s' if n_missing > 1 else ''} into {store_path} "
            f"({'the expert' if corrected is None else 'the corrected policy'} failed on {n_tried - n_missing} of {n_tried} "
            "seeds, which are not stored)."
        )
        return store


def store_attributes(env_config: EnvConfig, first_seed: int, expert: str) -> dict[str, Any]:
    """Return what a store says of demonstrations that an expert gives.

    Raises:
        UserError: The environment has no expert.
    """
    if not hasattr(env_config, "make_expert"):
        raise UserError(
            f"The environment {env_config.type!r} has no scripted expert: choose one that has, such as "
            "env=robosuite_lift, or import demonstrations with scripts/convert_demos.py."
        )
    return {
        "fps": env_config.fps,
        "env": describe_env(env_config),
        "first_seed": first_seed,
        "expert": expert,
        "versions": software_versions(),
    }


def demonstrations_of(
    env_config: EnvConfig,
    n_successes: int,
    first_seed: int,
    workers: int | None,
    corrected: MakeExperts | None,
    end: int = FIRST_EVALUATION_SEED,
) -> Generator[Demonstration]:
    """Yield the demonstrations of successive seeds, failed ones too, until enough of them succeeded, or there are no seeds.

    Args:
        env_config: See `collect`.
        n_successes: How many are enough.
        first_seed: The first seed to try.
        workers: See `collect`.
        corrected: See `collect`.
        end: One past the last seed.
    """
    waiting: dict[int, Demonstration] = {}
    crashed: set[int] = set()
    next_to_start = next_to_yield = first_seed
    n_busy = n_failures_in_a_row = 0
    n_workers = min(workers or len(os.sched_getaffinity(0)), n_successes)
    with WorkerPool(_Recorder, (env_config, corrected), n_workers, preload=[__name__]) as pool:
        while n_successes:
            # Never more than could still be needed, so that nothing is run in vain.
            n_promised = n_busy + sum(demonstration.success for demonstration in waiting.values())
            is_allowed = next_to_start < min(end, FIRST_EVALUATION_SEED)
            if pool.has_idle_worker and n_promised < n_successes and is_allowed:
                pool.submit(next_to_start)
                next_to_start += 1
                n_busy += 1
                continue
            if not n_busy and next_to_start == end < FIRST_EVALUATION_SEED:
                return
            if not n_busy:
                raise UserError(
                    f"The seeds of demonstrations reached {FIRST_EVALUATION_SEED}, where those of evaluation begin: "
                    "start from a lower first_seed or ask for fewer episodes."
                )
            for outcome in pool.wait():
                if outcome.result is not None:
                    waiting[outcome.task] = outcome.result
                    n_busy -= 1
                elif outcome.task in crashed:
                    raise UserError(
                        f"Seed {outcome.task} failed twice in the environment or its expert "
                        f"({outcome.crash}): try that seed by itself, or start from another first seed."
                    ) from RuntimeError(outcome.details)
                else:
                    crashed.add(outcome.task)
                    pool.submit(outcome.task)
            while n_successes and next_to_yield in waiting:
                demonstration = waiting.pop(next_to_yield)
                next_to_yield += 1
                n_successes -= demonstration.success
                n_failures_in_a_row = 0 if demonstration.success else n_failures_in_a_row + 1
                if n_failures_in_a_row == _MAX_FAILURES_IN_A_ROW:
                    raise UserError(
                        f"The expert failed on {n_failures_in_a_row} seeds in a row, up to "
                        f"{demonstration.seed}: it does not solve this task; check the task and the length "
                        "of its episodes."
                    )
                yield demonstration


class _Recorder:
    """In a worker: an environment, made once, that turns seeds into demonstrations."""

    def __init__(self, env_config: ExpertEnvConfig, corrected: MakeExperts | None) -> None:
        try:
            self._env = env_config.make_env()
            self._env.reset(seed=0)  # so that a missing renderer shows here and not as a failed seed
            env_config.make_expert(0)  # and so does an expert whose file is missing
        except ValueError as error:
            # Plugins know nothing of our UserError: theirs is a ValueError with the same kind of sentence.
            raise UserError(str(error)) from error
        self._make_expert = env_config.make_expert if corrected is None else corrected(env_config)

    def __call__(self, seed: int) -> Demonstration:
        return record_demonstration(self._env, self._make_expert(seed), seed)


def open_matching(path: Path, attributes: dict[str, Any]) -> DemoStore | None:
    """Open the store at a path if there is one.

    Args:
        path: Of the store.
        attributes: What its attributes `env`, `first_seed` and `expert` have to be.

    Raises:
        UserError: It holds something else, or is no store.
    """
    if not path.exists():
        return None
    store = DemoStore.open(path)
    wanted = {**attributes["env"], "first_seed": attributes["first_seed"], "expert": attributes["expert"]}
    theirs = store.attributes
    found = {**theirs.get("env", {}), "first_seed": theirs.get("first_seed"), "expert": theirs.get("expert", SCRIPTED)}
    if attributes["expert"] == CORRECTED and INTERVENTION in store.features:  # corrections belong to any demonstrations
        wanted, found = wanted | {"first_seed": None, "expert": None}, found | {"first_seed": None, "expert": None}
    differences = [
        f"{name} is {found.get(name)!r} there and {wanted.get(name)!r} here"
        for name in wanted | found
        if wanted.get(name) != found.get(name)
    ]
    if differences:
        raise UserError(
            f"{path} holds other demonstrations than these ({'; '.join(differences)}): choose another "
            "path, or delete it to collect anew."
        )
    return store


def append_demonstration(store: DemoStore, demonstration: Demonstration) -> None:
    """Store a demonstration as the next episode."""
    store.append_episode(
        demonstration.data,
        seed=demonstration.seed,
        success=demonstration.success,
        task=demonstration.task,
    )


def new_store(path: str | Path, first: Demonstration, attributes: dict[str, Any], codec: str) -> DemoStore:
    """Make a store for demonstrations like the first; see `DemoStore.create`."""
    features = {key: Feature(values.shape[1:], values.dtype.name) for key, values in first.data.items()}
    return DemoStore.create(path, features, attributes | {"names": first.names}, codec)
