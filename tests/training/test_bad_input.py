"""Data that do not fit each other: detected, one sentence, and what is there is kept."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pytest import MonkeyPatch, fixture, mark, raises
from rich.console import Console
from safetensors.torch import load_file, save_file
from toy_run import CAMERAS, CONFIG, ENCODER, POLICY, losses, make_store, run_training

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.demos.formats.lerobot import export_lerobot
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.environments import env_config_from
from pixio_robot.evaluation.checkpoints import open_checkpoint
from pixio_robot.images.preprocessing import ImagePreprocessor
from pixio_robot.training.config import DemosConfig
from pixio_robot.training.data.feature_cache import cache_features
from pixio_robot.training.data.opening import open_demonstrations
from pixio_robot.training.pictures import save_run_pictures
from pixio_robot.training.policy.building import build_policy, policy_config_from

SHORT = dataclasses.replace(CONFIG, steps=2, checkpoint_every=2)
OTHER_SIZES = {CAMERAS[0]: (32, 48), CAMERAS[1]: (64, 32)}


@fixture
def store(tmp_path: Path) -> DemoStore:
    return make_store(tmp_path / "demos.zarr")


@mark.parametrize("cached", [True, False])
def test_cameras_may_differ_in_size(tmp_path: Path, cached: bool) -> None:
    store = make_store(tmp_path / "demos.zarr", sizes=OTHER_SIZES)
    model_dir = run_training(store.path, tmp_path / "run", cached=cached, config=SHORT)
    assert np.isfinite(list(losses(tmp_path / "run").values())).all()
    config = open_checkpoint(model_dir)
    shapes = [feature.shape for feature in config.image_features.values()]
    assert shapes == [(3, 32, 48), (3, 64, 32)]


def test_pictures_of_cameras_that_differ_in_size(tmp_path: Path) -> None:
    """Eight frames of 48 px beside each other are wider than eight of 32 px, under which stays white."""
    store = make_store(tmp_path / "demos.zarr", sizes=OTHER_SIZES)
    preprocess = ImagePreprocessor((0.0,) * 3, (1.0,) * 3)
    save_run_pictures(store, EncoderConfig("pixio_tiny16"), preprocess, tmp_path / "pictures")
    picture = np.asarray(Image.open(tmp_path / "pictures" / "demonstration.png"))
    assert picture.shape == (32 + 64, 8 * 48, 3)
    assert (picture[32:, 8 * 32 :] == 255).all()
    np.testing.assert_array_equal(picture[32:, :32], store.read_steps(CAMERAS[1], np.array([0]))[0])


def test_demonstrations_without_images_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "demos.zarr", sizes={})
    with raises(UserError, match="pixio_act needs at least one camera .* but the data has none"):
        build_policy(policy_config_from(POLICY, ENCODER, store), store)


def test_other_demonstrations_do_not_continue_a_run(store: DemoStore, tmp_path: Path) -> None:
    """Same shapes, other numbers: the policy would go on with another normalisation than it has learnt."""
    model_dir = run_training(store.path, tmp_path / "run", config=SHORT)
    before = {path.name: path.read_bytes() for path in model_dir.iterdir()}
    other = make_store(tmp_path / "other.zarr", seed=1)
    with raises(UserError, match=r"other normalisation statistics .*\(action\.max, action\.mean.* new run"):
        run_training(other.path, tmp_path / "run", config=dataclasses.replace(SHORT, steps=4))
    assert {path.name: path.read_bytes() for path in model_dir.iterdir()} == before
    run_training(store.path, tmp_path / "run", config=dataclasses.replace(SHORT, steps=4))
    assert list(losses(tmp_path / "run")) == [1, 2, 3, 4]


def test_statistics_of_another_checkpoint_are_refused(store: DemoStore, tmp_path: Path) -> None:
    model_dir = run_training(store.path, tmp_path / "run", config=SHORT)
    open_checkpoint(model_dir)
    steps = json.loads((model_dir / "policy_postprocessor.json").read_text())["steps"]
    (name,) = [step["state_file"] for step in steps if "state_file" in step]
    foreign = shutil.copytree(model_dir, tmp_path / "foreign")
    statistics = load_file(foreign / name)
    (foreign / "checksums.json").unlink()  # as in a folder that was put together by hand
    save_file(
        {key: torch.zeros(7) if key.startswith("action.") else value for key, value in statistics.items()},
        foreign / name,
    )
    with raises(UserError, match=r"statistics of action in .* are of shape \(7,\), but .*action is of shape \(3,\)"):
        open_checkpoint(foreign)
    (foreign / name).unlink()
    with raises(UserError, match="statistics of action in .* are missing"):
        open_checkpoint(foreign)


def test_demonstrations_that_changed_after_caching_get_a_cache_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = VisionEncoder(ENCODER)
    path = tmp_path / "demos.zarr"
    first = make_store(path, episodes=2)
    counts: list[tuple[int, int]] = []

    def cached(store: DemoStore) -> torch.Tensor:
        counts.clear()
        cache = cache_features(
            store, encoder, CAMERAS, tmp_path / "features", on_progress=lambda *now: counts.append(now)
        )
        return cache.read(CAMERAS[0], np.array([3]))

    before = cached(first)
    shutil.rmtree(path)
    rewritten = make_store(path, episodes=2, seed=1)  # the same lengths at the same place
    assert not torch.allclose(cached(rewritten), before)
    assert counts[0][0] == 0
    shutil.rmtree(path)
    assert torch.equal(cached(make_store(path, episodes=2)), before)  # kept, and found again
    assert counts == [(22, 22)]
    shutil.rmtree(path)
    cached(make_store(path, episodes=3))  # one was appended
    assert counts[-1] == (36, 36)


def test_a_lerobot_dataset_that_changed_after_it_was_decoded(tmp_path: Path) -> None:
    """Each state has a store of its own; a store that was given a name is not used for another state."""
    env_config, console = env_config_from({"type": "pixio_robosuite"}), Console(quiet=True)
    dataset = tmp_path / "recorded"

    def opened(path: Path | None = None) -> DemoStore:
        demos = DemosConfig("lerobot", root=str(dataset), path=str(path) if path else None)
        return open_demonstrations(demos, env_config, tmp_path, console)

    sizes = {CAMERAS[0]: (32, 32)}
    for episodes in (1, 2):
        shutil.rmtree(dataset, ignore_errors=True)
        recorded = make_store(tmp_path / f"{episodes}.zarr", episodes, sizes=sizes)
        export_lerobot(recorded, dataset, "local/recorded", use_videos=False, console=console)
        store = opened()
        assert store.num_episodes == episodes
        modified = (store.path / "zarr.json").stat().st_mtime_ns
        assert opened().path == store.path
        assert (store.path / "zarr.json").stat().st_mtime_ns == modified  # found, not decoded again
        if episodes == 1:
            assert opened(tmp_path / "named.zarr").num_episodes == 1
    with raises(UserError, match="named.zarr was decoded from .*recorded before that dataset changed"):
        opened(tmp_path / "named.zarr")
    assert len(list((tmp_path / "demos").iterdir())) == 2


def test_tokens_that_do_not_fit_the_disk_are_refused_before_any_is_made(
    store: DemoStore, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    encoder = VisionEncoder(ENCODER)
    usage = shutil.disk_usage(tmp_path)
    # 36 frames of 8 + 6 tokens of 192 numbers take 189 KiB.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=180 * 1024))
    with raises(UserError, match=r"take 0.0 GiB, .* has 0.0 GiB left: set encoder.image_size"):
        cache_features(store, encoder, CAMERAS, tmp_path / "features")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=200 * 1024))
    cache_features(store, encoder, CAMERAS, tmp_path / "features")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))  # all is there
    cache_features(store, encoder, CAMERAS, tmp_path / "features")


@mark.parametrize(
    ("policy", "lacks", "message"),
    [
        ("pixio_act", "action", "has no 'action'"),
        ("pixio_act", "observation.state", "pixio_act needs observation.state, which"),
        ("pixio_bc", "observation.state", "pixio_bc needs observation.state, which"),
        ("pixio_diffusion", "observation.state", "pixio_diffusion needs observation.state, which"),
    ],
)
def test_demonstrations_without_what_a_policy_needs(tmp_path: Path, policy: str, lacks: str, message: str) -> None:
    whole = make_store(tmp_path / "whole.zarr")
    features = {name: feature for name, feature in whole.features.items() if name != lacks}
    store = DemoStore.create(tmp_path / "part.zarr", features, {"fps": 20, "env": {}})
    episode = {name: values for name, values in whole.episode(0).items() if name != lacks}
    store.append_episode(episode, seed=0, success=True, task="toy")
    with raises(UserError, match=message):
        build_policy(policy_config_from({"type": policy}, ENCODER, store), store)
