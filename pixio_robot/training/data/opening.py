"""What a policy is trained on: demonstrations wherever they come from, and a frozen encoder's tokens of them."""

from pathlib import Path

from lerobot.envs import EnvConfig
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.common.progress import phase_progress
from pixio_robot.common.storage.kept import only_one
from pixio_robot.demos import DemoStore
from pixio_robot.demos.windows.sampling import check_sampling
from pixio_robot.encoders import VisionEncoder
from pixio_robot.training.config import DemosConfig, PolicyJob
from pixio_robot.training.data.feature_cache import FeatureCache, cache_features


def open_demonstrations(
    demos: DemosConfig, env_config: EnvConfig | None, output_root: Path, console: Console
) -> DemoStore:
    """Open a demonstration store, having made it first where it must be collected (in an environment) or imported.

    Raises:
        UserError: There is no such store or dataset, or it is damaged or cannot be fetched; no demonstration
            succeeds; or the store has no episode, or lacks a task or an episode that is given a weight.
    """
    store = _opened(demos, env_config, output_root, console)
    if store.num_episodes == 0:
        raise UserError(f"{store.path} has no finished episode: record some first.")
    check_sampling(store, demos.sampling)
    return store


def _opened(demos: DemosConfig, env_config: EnvConfig | None, output_root: Path, console: Console) -> DemoStore:
    demos_root = output_root / "demos"
    if isinstance(demos.path, tuple):
        from pixio_robot.demos.formats.joining import joined_store

        return joined_store([DemoStore.open(path) for path in demos.path], demos_root, console)
    if demos.source == "store":
        assert demos.path is not None
        return DemoStore.open(demos.path)
    if demos.source == "lerobot":
        from pixio_robot.demos.formats.lerobot_hub import dataset_folder

        root = dataset_folder(demos.repo_id, Path(demos.root) if demos.root else None)
        return _imported(root, Path(demos.path) if demos.path else None, demos_root, console)
    from pixio_robot.demos.collection.collection import collect, store_path_for

    assert env_config is not None
    path = Path(demos.path) if demos.path else store_path_for(env_config, demos_root)
    return collect(
        env_config, path, demos.episodes, first_seed=demos.first_seed, workers=demos.workers, console=console
    )


def _imported(root: Path, path: Path | None, demos_root: Path, console: Console) -> DemoStore:
    """Return the store that a LeRobotDataset was decoded into, now or, if it is the same since, earlier."""
    from pixio_robot.demos.formats.lerobot import dataset_fingerprint, import_lerobot

    fingerprint = dataset_fingerprint(root)
    path = path or demos_root / f"{root.name}_{fingerprint[:8]}.zarr"
    if not path.exists():
        with only_one(path):
            if not path.exists():
                return import_lerobot(root, path, console=console)
    store = DemoStore.open(path)
    # Stores of earlier versions do not say what they were made from.
    if store.attributes.get("source_fingerprint", fingerprint) != fingerprint:
        raise UserError(
            f"{path} was decoded from {root} before that dataset changed: delete {path}, or set demos.path=null, which "
            f"gives every state of a dataset a store of its own."
        )
    console.print(f"reusing {path}", highlight=False, soft_wrap=True)
    return store


def encoder_features(
    store: DemoStore,
    encoder: VisionEncoder,
    image_keys: list[str],
    num_episodes: int | None,
    job: PolicyJob,
    console: Console,
    patches: bool = True,
) -> FeatureCache:
    """Return the encoder's tokens of the first episodes' frames, from the cache that all runs share; say how much was there.

    Raises:
        UserError: See `cache_features`.
    """
    reused: list[int] = []
    with phase_progress(console) as progress:
        task = progress.add_task("encoding frames", total=None, note="")

        def show(done: int, total: int) -> None:
            if not reused:
                reused.extend((done, total))
            progress.update(task, completed=done, total=total)

        cache = cache_features(
            store,
            encoder,
            image_keys,
            Path(job.output_root) / "features",
            num_steps=int(store.episode_ends[:num_episodes][-1]),
            augmented_copies=job.augmented_copies,
            patches=patches,
            precision=job.trainer.feature_precision,
            on_progress=show,
        )
    share = reused[0] / reused[1]
    copies = job.augmented_copies
    changed = f" with {copies} changed {'copy' if copies == 1 else 'copies'} of every frame" if copies else ""
    console.print(f"feature cache: {cache.num_bytes / 2**20:.1f} MiB{changed}; {100 * share:.0f} % was there before")
    return cache
