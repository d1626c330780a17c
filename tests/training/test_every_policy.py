"""Every policy through the training loop: cached tokens train like images, windows lie where LeRobot puts them."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from pytest import approx, mark, raises
from rich.console import Console
from safetensors.torch import load_file
from toy_run import CAMERAS, CONFIG, ENCODER, losses, make_store

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Sampling
from pixio_robot.engine.run_log import RunLog
from pixio_robot.training.data.batches import TrainingBatches
from pixio_robot.training.data.feature_cache import cache_features
from pixio_robot.training.job import seed_everything
from pixio_robot.training.policy.building import build_policy, policy_config_from
from pixio_robot.training.trainer import train

POLICIES = {
    "bc": {"type": "pixio_bc", "n_obs_steps": 3, "chunk_size": 2, "hidden_width": 16},
    "diffusion": {
        "type": "pixio_diffusion",
        "n_obs_steps": 2,
        "horizon": 4,
        "n_action_steps": 2,
        "down_dims": [8, 16],
        "n_groups": 2,  # groups of one or two numbers would turn rounding into a sign
        "diffusion_step_embed_dim": 8,
        "drop_n_last_frames": 1,
    },
}


# Slow: at higher rates Adam amplifies the rounding of cached tokens to float16.
CONFIG = dataclasses.replace(CONFIG, learning_rate=1e-5, steps=8)


def run(store: DemoStore, run_dir: Path, description: dict, *, cached: bool, interrupt_at: int | None = None) -> Path:
    torch.set_num_threads(1)
    seed_everything(0)
    config = policy_config_from(description, ENCODER, store)
    policy, processors = build_policy(config, store)
    batches = TrainingBatches(
        store,
        CAMERAS,
        len(config.action_delta_indices),
        CONFIG.batch_size,
        seed=0,
        cache=cache_features(store, policy.encoder, CAMERAS, run_dir.parent / "features") if cached else None,
        n_obs_steps=config.n_obs_steps,
        first_action=config.action_delta_indices[0],
        drop_n_last_frames=getattr(config, "drop_n_last_frames", 0),
    )

    def maybe_stop(step: int, loss: float) -> None:
        if step == interrupt_at:
            raise KeyboardInterrupt

    log = RunLog(run_dir, Console(quiet=True))
    return train(policy, processors, batches, CONFIG, run_dir, log, {"env": {}}, on_step=maybe_stop)


@mark.parametrize("name", POLICIES)
def test_cached_features_train_like_images_and_a_stopped_run_resumes(name: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "demos.zarr")
    whole = run(store, tmp_path / "cached", POLICIES[name], cached=True)
    run(store, tmp_path / "images", POLICIES[name], cached=False)
    cached, images = losses(tmp_path / "cached"), losses(tmp_path / "images")
    assert len(cached) == CONFIG.steps
    assert list(cached.values()) == approx(list(images.values()), rel=2e-3)
    with raises(KeyboardInterrupt):
        run(store, tmp_path / "stopped", POLICIES[name], cached=True, interrupt_at=6)  # after the checkpoint at 5
    resumed = run(store, tmp_path / "stopped", POLICIES[name], cached=True)
    assert losses(tmp_path / "stopped") == cached
    first, second = (load_file(path / "model.safetensors") for path in (whole, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)  # running statistics of BC too


def test_windows_lie_where_lerobot_puts_them(tmp_path: Path) -> None:
    """LeRobot's delta indices of diffusion with two observations: actions from −1 on, padded outside the episode."""
    store = make_store(tmp_path / "demos.zarr")
    actions = store.read("action", 0, store.num_steps)
    batches = TrainingBatches(
        store, CAMERAS, 4, 99, seed=0, cache=None, n_obs_steps=2, first_action=-1, drop_n_last_frames=2
    )
    batch = batches.batch(0)
    # Episodes of 5, 6 and 7 steps: their last two steps start no window.
    assert sorted(batch["index"].tolist()) == [0, 1, 2, 5, 6, 7, 8, 11, 12, 13, 14, 15]
    row = {int(index): position for position, index in enumerate(batch["index"])}
    np.testing.assert_array_equal(batch["action"][row[7]], actions[6:10])
    np.testing.assert_array_equal(batch["action"][row[5]], actions[[5, 5, 6, 7]])
    assert batch["action_is_pad"][row[5]].tolist() == [True, False, False, False]
    np.testing.assert_array_equal(batch["action"][row[8]], actions[[7, 8, 9, 10]])
    assert not batch["action_is_pad"][row[8]].any()
    frames = store.read_steps(CAMERAS[0], np.array([6, 7]))
    np.testing.assert_array_equal((batch[CAMERAS[0]][row[7]].permute(0, 2, 3, 1) * 255).round(), frames)


@mark.parametrize(
    ("horizon", "dropped", "message"),
    [
        (8, 0, "^3 of 3 demonstrations are shorter .* of 8 steps \\(episode 0 has 5\\): set .* to 5 or less"),
        (6, 0, "^1 of 3 demonstrations .* of 6 steps \\(episode 0 has 5\\): leave .*'\\+demos.episode_weights={0: 0}'"),
        (4, 7, "drop_n_last_frames=7 leaves nothing"),
    ],
)
def test_horizons_beyond_the_demonstrations_are_refused(
    horizon: int, dropped: int, message: str, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "demos.zarr")
    with raises(UserError, match=message):
        TrainingBatches(store, CAMERAS, horizon, 4, seed=0, cache=None, drop_n_last_frames=dropped)


def test_a_short_episode_is_left_out_or_padded_on_request(tmp_path: Path) -> None:
    store = make_store(tmp_path / "demos.zarr")
    without = TrainingBatches(store, CAMERAS, 6, 18, seed=0, cache=None, sampling=Sampling(episode_weights={0: 0}))
    assert set(without.batch(0)["index"].tolist()) == set(range(5, 18))
    padded = TrainingBatches(store, CAMERAS, 6, 18, seed=0, cache=None, sampling=Sampling(pad_short_episodes=True))
    batch = padded.batch(0)
    first = batch["index"].tolist().index(0)
    assert batch["action_is_pad"][first].tolist() == [False] * 5 + [True]
    assert torch.equal(batch["action"][first, 5], batch["action"][first, 4])
