"""Small jobs of every kind that tests kill; each goes on from what is in its folder.

As a program: `small_jobs.py JOB INPUTS FOLDER`. `finished_in(JOB, FOLDER)` says what an earlier one has finished.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from numbered_episodes import append_numbered
from rich.console import Console

from pixio_robot.common.errors import exits_on_user_error
from pixio_robot.demos import DemoStore, Feature

type Finished = dict[str, str]
"""Digests of what is finished, by its name."""

STORE, LEROBOT, HDF5, BUFFER, ZIP = "demos.zarr", "lerobot", "demos.hdf5", "buffer.zarr.zip", "shared.demos.zip"
_FEATURES = {
    "observation.images.front": Feature((32, 32, 3), "uint8"),
    "observation.state": Feature((3,), "float32"),
    "action": Feature((2,), "float32"),
}


@dataclass(frozen=True)
class SmallJob:
    """A job, and how to see what it has finished."""

    run: Callable[[Path, Path], None]
    """Takes the folder of inputs and the one to work in."""
    finished: Callable[[Path], Finished]
    """Takes the latter. What begins with "loss" may be done again from the last checkpoint."""


def make_inputs(folder: Path) -> None:
    """Write what the jobs begin from: episodes in every format, images, demonstrations and a checkpoint."""
    from checkpoints import make_checkpoint
    from PIL import Image
    from toy_job import make_demonstrations

    from pixio_robot.demos.formats.conversion import convert

    store = DemoStore.create(folder / STORE, _FEATURES, {"fps": 20})
    for number in range(6):
        append_numbered(store, number)
    store.close()
    for name in (LEROBOT, HDF5, BUFFER, ZIP):
        videos = False if name == LEROBOT else None
        convert(folder / STORE, folder / name, use_videos=videos, console=Console(file=StringIO()))
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(24):
        image = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((40, 40))
        image.save(folder / "images" / f"{number:03d}.png")
    demonstrations = make_demonstrations(folder / "toy.zarr")
    (folder / "policies").mkdir()
    make_checkpoint("pixio_bc", "pixio_tiny16", demonstrations, folder / "policies")


def _record(_: Path, folder: Path) -> None:
    from toy_expert_env import ToyExpertEnvConfig

    from pixio_robot.demos.collection.collection import collect

    config = ToyExpertEnvConfig(step_seconds=0.005, expert_fails_thirds=True)
    collect(config, folder / STORE, 12, workers=2, console=Console(quiet=True))


def _episodes(path: Path) -> Finished:
    """Digests of the episodes of a store."""
    if not path.exists():
        return {}
    store = DemoStore.open(path)
    digests = {}
    for number in range(store.num_episodes):
        digest = hashlib.sha256(f"{store.episode_seeds[number]} {store.episode_success[number]}".encode())
        for key, values in sorted(store.episode(number).items()):
            digest.update(key.encode() + values.tobytes())
        digests[f"{path.name}/{number}"] = digest.hexdigest()
    return digests


def _conversion(source: str, made: str) -> SmallJob:
    """A conversion from a format to another: lossless all, so that the way back shows whether all is there."""
    options = {LEROBOT: {"use_videos": False}, STORE: {"format": "store"} if source == ZIP else {}}.get(made, {})

    def run(inputs: Path, folder: Path) -> None:
        from pixio_robot.demos.formats.conversion import convert

        if not (folder / made).exists():
            convert(inputs / source, folder / made, **options, console=Console(file=StringIO()))

    def finished(folder: Path) -> Finished:
        from pixio_robot.demos.formats.conversion import convert

        if not (folder / made).exists():
            return {}
        if made in (STORE, ZIP):
            return _episodes(folder / made)
        with tempfile.TemporaryDirectory() as temporary:
            convert(folder / made, Path(temporary) / STORE, console=Console(file=StringIO()))
            return _episodes(Path(temporary) / STORE)

    return SmallJob(run, finished)


def _render(_: Path, folder: Path) -> None:
    from lerobot_env_pixio.scenes import FrameShards, render_shards

    render_shards(FrameShards(512 + 99, seed=3, image_size=16, families=("pusht",)), folder / "frames", workers=2)


def _files(folder: Path, pattern: str) -> Finished:
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def _cache_images(inputs: Path, folder: Path) -> None:
    from pixio_robot.pretraining.sources.cache import folder_images

    for side in (24, 32, 40):
        folder_images(inputs / "images", folder / "images", side)


def _cache_features(inputs: Path, folder: Path) -> None:
    from toy_run import CAMERAS, ENCODER

    from pixio_robot.encoders import VisionEncoder
    from pixio_robot.training.data.feature_cache import cache_features

    torch.manual_seed(0)
    store = DemoStore.open(inputs / "toy.zarr")
    encoder = VisionEncoder(replace(ENCODER, mode="frozen"))
    cache_features(store, encoder, CAMERAS, folder / "features", augmented_copies=6, batch_size=16)


def _features(folder: Path) -> Finished:
    return {name: text for name, text in _files(folder, "features/*.zarr/**/c/*/0/0").items() if "partial" not in name}


def _train(inputs: Path, folder: Path) -> None:
    from toy_job import toy_job

    from pixio_robot.training.job import run_policy_job

    job = toy_job(inputs / "toy.zarr", folder)
    trainer = replace(job.trainer, steps=8, checkpoint_every=2, keep_checkpoints=99, evaluate_every=8)
    run_policy_job(replace(job, trainer=trainer), resume="auto", run="killed", console=Console(quiet=True))


def _pretrain(inputs: Path, folder: Path) -> None:
    from tiny_run import TINY

    from pixio_robot.common.settings import plain
    from pixio_robot.pretraining.job import PretrainingJob, run_job
    from pixio_robot.pretraining.objectives.reconstruction import Reconstruction

    settings = replace(TINY, steps=5, checkpoint_minutes=0, keep_checkpoints=99)
    images = {"kind": "folder", "path": str(inputs / "images"), "side": 32}
    job = PretrainingJob("pretraining", type(settings)(**plain(settings)), images, str(folder / "cache"), str(folder))
    run_job(job, Reconstruction, "pretrain_encoder", "auto", run="killed", console=Console(quiet=True))


def _run_of(job: str, *results: str) -> Callable[[Path], Finished]:
    """What a training has finished: losses, checkpoints, and results."""

    def finished(folder: Path) -> Finished:
        run = folder / job / "killed"
        digests = {}
        log = run / "log.jsonl"
        for line in log.read_text().splitlines() if log.exists() else []:
            with suppress(json.JSONDecodeError):  # the last one may be half written
                record = json.loads(line)
                if "loss" in record:
                    digests[f"loss of step {record['step']}"] = repr(record["loss"])
        for state in run.glob("checkpoints/[0-9]*/state.json"):
            weights = _files(state.parent, "*.safetensors") | _files(state.parent, "pretrained_model/*.safetensors")
            digests |= {f"{state.parent.name}/{name}": digest for name, digest in weights.items()}
        for pattern in results:
            digests |= _files(run, pattern)
        if (record := run / "evaluation" / "evaluation.json").exists():
            digests["evaluation"] = _rollouts(record)
        if (run / "report.html").exists():
            digests["report"] = str(len((run / "report.html").read_text().rstrip().removesuffix("</html>")) > 1000)
        return digests

    return finished


def _rollouts(record: Path) -> str:
    episodes = json.loads(record.read_text())["episodes"]
    return repr([(episode["seed"], episode["success"], episode["steps"]) for episode in episodes])


def _evaluate(inputs: Path, folder: Path) -> None:
    import toy_plugin  # noqa: F401 (registers the environment)

    sys.path.append(str(Path(__file__).parents[2] / "scripts"))
    from evaluate_policy import EvaluatePolicy, main

    env = {"type": "pixio_toy", "episode_length": 12}
    checkpoint = next((inputs / "policies").iterdir())
    main.main(EvaluatePolicy(env=env, checkpoint=checkpoint, episodes=6, videos=2, output_root=folder))


def _evaluations(folder: Path) -> Finished:
    """What comparisons take for finished evaluations; every try has a folder of its own, and all must be alike."""
    records = {_rollouts(record) for record in folder.glob("evaluate_policy/*/evaluation/evaluation.json")}
    return {"evaluation": " or ".join(sorted(records))} if records else {}


JOBS = {
    "recording": SmallJob(_record, lambda folder: _episodes(folder / STORE)),
    **{f"converting a store to {made}": _conversion(STORE, made) for made in (LEROBOT, HDF5, BUFFER, ZIP)},
    **{f"converting {made} to a store": _conversion(made, STORE) for made in (LEROBOT, HDF5, BUFFER, ZIP)},
    "rendering": SmallJob(_render, lambda folder: _files(folder, "frames/*.tar")),
    "caching images": SmallJob(_cache_images, lambda folder: _files(folder, "images/[0-9a-f]*/*")),
    "caching features": SmallJob(_cache_features, _features),
    "training": SmallJob(_train, _run_of("train_policy")),
    "pretraining": SmallJob(_pretrain, _run_of("pretrain_encoder", "encoder.safetensors")),
    "evaluating": SmallJob(_evaluate, _evaluations),
}


def _export(format_: str, suffix: str) -> SmallJob:
    def run(inputs: Path, folder: Path) -> None:
        from pixio_robot.deployment.export.exporter import ExportOptions, export_policy

        checkpoint = next((inputs / "policies").iterdir())
        export_policy(checkpoint, DemoStore.open(inputs / "toy.zarr"), folder / f"p{suffix}", ExportOptions(format_))

    return SmallJob(run, lambda folder: {path.name: "" for path in folder.glob(f"p{suffix}")})


def _export_encoder(_: Path, folder: Path) -> None:
    from pixio_robot.encoders.exporting import export_weights

    if not (folder / "encoder").exists():
        export_weights("pixio_tiny16", "pretrained", "timm", folder / "encoder")


def _inspect(inputs: Path, folder: Path) -> None:
    from pixio_robot.demos.inspection.report import run_inspection

    run_inspection(inputs / "toy.zarr", folder / "inspection")


def _keep_scenes(_: Path, folder: Path) -> None:
    from toy_simulator import FAMILIES, toy_simulator

    from pixio_robot.downstream.scenes import SceneSet, scenes

    scenes(SceneSet(FAMILIES, 64, 32, seed=1), toy_simulator(), folder / "scenes", Console(quiet=True))


def _named(pattern: str) -> Callable[[Path], Finished]:
    """For files that have the time in them, or whose encoder does not promise the same bytes."""
    return lambda folder: {str(path.relative_to(folder)): "" for path in folder.glob(pattern)}


WRITERS = JOBS | {
    "exporting TorchScript": _export("torchscript", ".pt"),
    "exporting pt2": _export("pt2", ".pt2"),
    "exporting ONNX": _export("onnx", ".onnx"),
    "exporting an encoder": SmallJob(_export_encoder, lambda folder: _files(folder, "encoder/*")),
    "inspecting": SmallJob(_inspect, _named("inspection/*")),
    "keeping scenes": SmallJob(_keep_scenes, lambda folder: _files(folder, "scenes/*/*.npy")),
}
"""What writes files; the others of them are not killed, since they write one result at their end."""

if __name__ == "__main__":
    name, inputs, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    with suppress(OSError):  # on a disk that is read-only
        (work / "temporary").mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = str(work / "temporary")
    exits_on_user_error(WRITERS[name].run)(inputs, work / "results")
