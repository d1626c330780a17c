"""Every policy through the training loop: cached tokens train like images, windows lie where LeRobot puts them."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from pytest import approx, mark, raises
from safetensors.torch import load_file
from toy_run import CAMERAS, CONFIG, DIFFUSION, losses, make_store, run_training

from pixio_robot.common.errors import UserError
from pixio_robot.demos import Sampling
from pixio_robot.training.data.batches import TrainingBatches, Windows

POLICIES = {
    "bc": {"type": "pixio_bc", "n_obs_steps": 3, "chunk_size": 2, "hidden_width": 16},
    "diffusion": DIFFUSION,
}


# Slow: at higher rates Adam amplifies the rounding of cached tokens to float16.
CONFIG = dataclasses.replace(CONFIG, learning_rate=1e-5, steps=8)


@mark.parametrize("name", POLICIES)
def test_cached_features_train_like_images_and_a_stopped_run_resumes(name: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "demos.zarr")
    arguments = {"policy": POLICIES[name], "config": CONFIG}
    whole = run_training(store.path, tmp_path / "cached", **arguments)
    run_training(store.path, tmp_path / "images", cached=False, **arguments)
    cached, images = losses(tmp_path / "cached"), losses(tmp_path / "images")
    assert len(cached) == CONFIG.steps
    assert list(cached.values()) == approx(list(images.values()), rel=2e-3)
    with raises(KeyboardInterrupt):
        run_training(store.path, tmp_path / "stopped", interrupt_at=6, **arguments)  # after the checkpoint at 5
    resumed = run_training(store.path, tmp_path / "stopped", **arguments)
    assert losses(tmp_path / "stopped") == cached
    first, second = (load_file(path / "model.safetensors") for path in (whole, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)  # running statistics of BC too


def test_windows_lie_where_lerobot_puts_them(tmp_path: Path) -> None:
    """LeRobot's delta indices of diffusion with two observations: actions from −1 on, padded outside the episode."""
    store = make_store(tmp_path / "demos.zarr")
    actions = store.read("action", 0, store.num_steps)
    batches = TrainingBatches(
        store, CAMERAS, Windows(4, n_obs_steps=2, first_action=-1, drop_n_last_frames=2), 99, seed=0, cache=None
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
        TrainingBatches(store, CAMERAS, Windows(horizon, drop_n_last_frames=dropped), 4, seed=0, cache=None)


def test_a_short_episode_is_left_out_or_padded_on_request(tmp_path: Path) -> None:
    store = make_store(tmp_path / "demos.zarr")
    without = TrainingBatches(
        store, CAMERAS, Windows(6), 18, seed=0, cache=None, sampling=Sampling(episode_weights={0: 0})
    )
    assert set(without.batch(0)["index"].tolist()) == set(range(5, 18))
    padded = TrainingBatches(
        store, CAMERAS, Windows(6), 18, seed=0, cache=None, sampling=Sampling(pad_short_episodes=True)
    )
    batch = padded.batch(0)
    first = batch["index"].tolist().index(0)
    assert batch["action_is_pad"][first].tolist() == [False] * 5 + [True]
    assert torch.equal(batch["action"][first, 5], batch["action"][first, 4])
