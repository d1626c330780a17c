"""Training: exact resume after SIGKILL, cached tokens equal images, checkpoints complete, caches never stale."""

import dataclasses
import json
import signal
import threading
from pathlib import Path

import numpy as np
import torch
from forked_scripts import PRELOADED
from pytest import LogCaptureFixture, MonkeyPatch, approx, fixture, mark, raises
from safetensors.torch import load_file
from toy_run import CAMERAS, CONFIG, ENCODER, POLICY, losses, make_store, run_training

from pixio_robot.common.errors import UserError
from pixio_robot.common.precision import multiplies_bfloat16
from pixio_robot.common.signals import StoppedError
from pixio_robot.common.workers import start_server
from pixio_robot.demos import DemoStore
from pixio_robot.encoders import EncoderConfig, VisionEncoder
from pixio_robot.engine.average import WeightAverage
from pixio_robot.images.preprocessing import frames_to_images
from pixio_robot.training.config import TrainerConfig
from pixio_robot.training.data.batches import TrainingBatches, Windows
from pixio_robot.training.data.feature_cache import FeatureCache, cache_features
from pixio_robot.training.policy.building import policy_config_from
from pixio_robot.training.policy.parameter_groups import learning_rate_factor


@fixture
def store(tmp_path: Path) -> DemoStore:
    return make_store(tmp_path / "demos.zarr")


@mark.parametrize("kill_at", [3, 8])
def test_a_killed_run_resumes_exactly(store: DemoStore, tmp_path: Path, kill_at: int) -> None:
    """Killed before and after the first checkpoint (step 5), the losses equal the uninterrupted run's bit for bit."""
    whole = run_training(store.path, tmp_path / "whole")
    process = start_server(PRELOADED).Process(
        target=run_training, args=(store.path, tmp_path / "killed"), kwargs={"kill_at": kill_at}
    )
    process.start()
    process.join()
    assert process.exitcode == -9
    resumed = run_training(store.path, tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 12
    first, second = (load_file(path / "model.safetensors") for path in (whole, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)


@mark.usefixtures("interruptible")
@mark.parametrize(("request_", "asked_at"), [(signal.SIGINT, 3), (signal.SIGTERM, 12)])
def test_a_run_asked_to_stop_saves_its_step_and_goes_on_from_there(
    store: DemoStore, tmp_path: Path, monkeypatch: MonkeyPatch, request_: signal.Signals, asked_at: int
) -> None:
    """Long before a checkpoint is due, and in the very last step, after which a run still evaluates."""
    config = dataclasses.replace(CONFIG, log_every=4, checkpoint_every=12)
    finished = run_training(store.path, tmp_path / "whole", config=config)
    batch = TrainingBatches.batch

    def ask(self: TrainingBatches, index: int) -> dict[str, torch.Tensor]:
        if index == asked_at - 1:
            signal.raise_signal(request_)
        return batch(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingBatches, "batch", ask)
        with raises(StoppedError) as stopped:
            run_training(store.path, tmp_path / "parts", config=config)
    assert stopped.value.request == request_
    assert (tmp_path / "parts" / "checkpoints" / "last").readlink().name == f"{asked_at:06d}"
    resumed = run_training(store.path, tmp_path / "parts", config=config)
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    if asked_at == 3:  # the mean of steps 1 to 4 in two parts
        parts[4] = approx((3 * parts.pop(3) + parts[4]) / 4)
    assert parts == whole
    weights, again = (load_file(path / "model.safetensors") for path in (finished, resumed))
    assert all(torch.equal(weights[key], again[key]) for key in weights)


def test_cached_features_train_like_images(store: DemoStore, tmp_path: Path) -> None:
    run_training(store.path, tmp_path / "cached")
    run_training(store.path, tmp_path / "images", cached=False)
    cached, images = losses(tmp_path / "cached"), losses(tmp_path / "images")
    assert list(cached.values()) == approx(list(images.values()), rel=2e-3)  # tokens are kept in float16


def test_the_newest_checkpoints_stay_and_are_lerobots(store: DemoStore, tmp_path: Path) -> None:
    model_dir = run_training(store.path, tmp_path / "run")
    checkpoints = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert checkpoints == ["000010", "000012", "last"]
    names = {path.name for path in model_dir.iterdir()}
    assert {"config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"} <= names
    assert json.loads((model_dir / "pixio_run.json").read_text()) == {"env": {}}


def test_a_checkpoint_of_another_policy_is_refused(store: DemoStore, tmp_path: Path, monkeypatch) -> None:
    run_training(store.path, tmp_path / "run")
    monkeypatch.setitem(POLICY, "dim_model", 64)
    with raises(UserError, match=r"cannot be continued with other settings \(trainable parameters"):
        run_training(store.path, tmp_path / "run")


def test_cache_holds_the_encoders_tokens_and_is_found_again(store: DemoStore, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = VisionEncoder(ENCODER)
    calls: list[tuple[int, int]] = []
    cache = cache_features(store, encoder, CAMERAS, tmp_path / "features", on_progress=lambda *done: calls.append(done))
    assert calls[0] == (0, 36)
    assert calls[-1] == (36, 36)
    steps = np.array([17, 0, 6])
    frames = torch.from_numpy(store.read_steps(CAMERAS[1], steps))
    expected = encoder(frames_to_images(frames)).flatten()
    torch.testing.assert_close(cache.read(CAMERAS[1], steps), expected, rtol=2e-3, atol=2e-3)
    again: list[tuple[int, int]] = []
    cache_features(store, encoder, CAMERAS, tmp_path / "features", on_progress=lambda *done: again.append(done))
    assert again == [(36, 36)]


def test_tokens_in_bfloat16_are_those_of_float32_but_for_its_rounding(store: DemoStore, tmp_path: Path) -> None:
    encoder, steps = VisionEncoder(ENCODER), np.arange(18)
    exact, rounded, automatic = (
        cache_features(store, encoder, CAMERAS, tmp_path / "features", precision=precision).read(CAMERAS[0], steps)
        for precision in ("float32", "bfloat16", "auto")
    )
    assert 0 < (rounded - exact).std() < 0.01 * exact.std()
    assert torch.equal(automatic, rounded if multiplies_bfloat16() else exact)
    assert len(list((tmp_path / "features").glob("*.zarr"))) == 2  # each precision has its own


def test_only_the_steps_that_are_read_are_encoded_and_the_rest_when_they_are(store: DemoStore, tmp_path: Path) -> None:
    long_store = make_store(tmp_path / "long.zarr", episodes=12)  # 126 steps
    encoder = VisionEncoder(ENCODER)
    calls: list[tuple[int, int]] = []

    def cache(num_steps: int | None) -> FeatureCache:
        calls.clear()
        return cache_features(
            long_store,
            encoder,
            CAMERAS[:1],
            tmp_path / "features",
            num_steps=num_steps,
            batch_size=32,
            on_progress=lambda *done: calls.append(done),
        )

    few = cache(40)
    assert calls == [(0, 64), (32, 64), (64, 64)]
    all_steps = cache(None)
    assert calls == [(64, 126), (96, 126), (126, 126)]
    assert few.num_bytes == all_steps.num_bytes * 64 // 126
    steps = np.array([0, 39])
    assert torch.equal(few.read(CAMERAS[0], steps), all_steps.read(CAMERAS[0], steps))
    frames = torch.from_numpy(long_store.read_steps(CAMERAS[0], np.array([125])))
    expected = encoder(frames_to_images(frames)).flatten()
    torch.testing.assert_close(all_steps.read(CAMERAS[0], np.array([125])), expected, rtol=2e-3, atol=2e-3)
    assert cache(40).num_bytes == few.num_bytes  # what a longer run has encoded serves a shorter one
    assert calls == [(64, 64)]


@mark.parametrize("damage", ["flipped", "cut", "missing", "what it says"])
def test_damaged_tokens_are_encoded_again_aloud(
    store: DemoStore, tmp_path: Path, caplog: LogCaptureFixture, damage: str
) -> None:
    encoder, steps, calls = VisionEncoder(ENCODER), np.arange(store.num_steps), []

    def tokens() -> torch.Tensor:
        calls.clear()
        folder = tmp_path / "features"
        cache = cache_features(store, encoder, CAMERAS, folder, on_progress=lambda *done: calls.append(done))
        return cache.read(CAMERAS[0], steps)

    whole = tokens()
    (group,) = (tmp_path / "features").iterdir()
    (chunk,) = (path for path in (group / CAMERAS[0] / "c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    if damage == "flipped":
        chunk.write_bytes(content)
    elif damage == "cut":
        chunk.write_bytes(content[:-200])
    elif damage == "missing":
        chunk.unlink()
    else:
        (group / "zarr.json").write_text("{")
    assert torch.equal(tokens(), whole)
    assert calls[0] == (0 if damage == "what it says" else 18, 36)
    assert "encoded again" in caplog.text or "made again" in caplog.text
    tokens()
    assert calls == [(36, 36)]


def test_frames_are_decoded_while_the_encoder_works(store: DemoStore, tmp_path: Path, monkeypatch) -> None:
    long_store = make_store(tmp_path / "long.zarr", episodes=12)  # 126 steps: four batches of each camera
    encoder = VisionEncoder(ENCODER)
    starts: list[threading.Event] = [threading.Event() for _ in range(8)]
    read, begun, encoded = long_store.read, iter(starts), []

    def watched(key: str, start: int, stop: int) -> np.ndarray:
        next(begun).set()
        return read(key, start, stop)

    def during_encoding(*_: object) -> None:
        last_of_camera = len(encoded) % 4 == 3
        encoded.append(last_of_camera or starts[len(encoded) + 1].wait(timeout=30))

    monkeypatch.setattr(long_store, "read", watched)
    encoder.register_forward_pre_hook(during_encoding)
    cache_features(long_store, encoder, CAMERAS, tmp_path / "features", batch_size=32)
    assert encoded == [True] * 8


def test_other_weights_and_other_data_never_meet_an_old_cache(store: DemoStore, tmp_path: Path) -> None:
    encoders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        encoders.append(VisionEncoder(ENCODER))
    other_store = make_store(tmp_path / "other.zarr", seed=1)
    steps = np.array([3])
    read = {}
    for name, encoder, data in (
        ("first", encoders[0], store),
        ("other weights", encoders[1], store),
        ("other data", encoders[0], other_store),
    ):
        read[name] = cache_features(data, encoder, CAMERAS, tmp_path / "features").read(CAMERAS[0], steps)
    assert len(list((tmp_path / "features").iterdir())) == 3
    assert not torch.allclose(read["first"], read["other weights"])
    assert not torch.allclose(read["first"], read["other data"])


def test_an_epoch_sees_every_window_once_and_the_next_is_shuffled_anew(store: DemoStore) -> None:
    batches = TrainingBatches(store, CAMERAS, Windows(4), 6, seed=0, cache=None)
    epochs = [torch.cat([batches.batch(3 * epoch + part)["index"] for part in range(3)]) for epoch in range(2)]
    assert [sorted(epoch.tolist()) for epoch in epochs] == [list(range(18))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()
    assert batches.batch(1)["index"].tolist() == epochs[0][6:12].tolist()


def test_fewer_episodes_than_the_store_has(store: DemoStore) -> None:
    batches = TrainingBatches(store, CAMERAS, Windows(4), 11, seed=0, cache=None, num_episodes=2)
    assert sorted(batches.batch(0)["index"].tolist()) == list(range(5 + 6))


def test_average_is_the_closed_form() -> None:
    """Against the definition: a ← d·a + (1 − d)·w with d = min(decay, (1 + n) / (10 + n))."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.2)
    expected = 0.0
    for n, value in enumerate([1.0, 5.0, -2.0, 3.0]):
        model.weight.data.fill_(value)
        average.update()
        decay = min(0.2, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert model.weight.item() == approx(expected)
    assert model.weight.item() == 3.0


def test_schedule_warms_up_and_ends_at_zero() -> None:
    config = TrainerConfig(steps=100, warmup_steps=10)
    assert learning_rate_factor(0, config) == approx(0.1)
    assert learning_rate_factor(9, config) == learning_rate_factor(10, config) == 1.0
    assert learning_rate_factor(55, config) == approx(0.5)
    assert learning_rate_factor(100, config) == approx(0.0)
    constant = dataclasses.replace(config, schedule="constant")
    assert learning_rate_factor(0, constant) == approx(0.1)
    assert [learning_rate_factor(step, constant) for step in (10, 55, 100)] == [1.0, 1.0, 1.0]


@mark.parametrize(
    ("description", "message"),
    [
        ({"type": "pixio_akt"}, "Did you mean 'pixio_act'"),
        ({"type": "pixio_act", "chunk_sise": 3}, "Did you mean 'chunk_size'"),
        ({"type": "pixio_act", "chunk_size": 2, "n_action_steps": 3}, "chunk size"),
    ],
)
def test_wrong_policies_are_named(store: DemoStore, description: dict, message: str) -> None:
    with raises(UserError, match=message):
        policy_config_from(description, EncoderConfig(), store)
