import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.envs import make_env_pre_post_processors
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.policies.factory import get_policy_class, make_policy_config
from lerobot.scripts.lerobot_eval import eval_policy
from lerobot.utils.import_utils import register_third_party_plugins
from toy_plugin import CAMERAS, ToyEnvConfig

from pixio_robot.common.errors import UserError
from pixio_robot.evaluation.record import Episode, EvaluationRecord
from pixio_robot.evaluation.rollouts.evaluate import evaluate_policy

SEEDS = list(range(100, 112))


def outcomes(record: EvaluationRecord) -> list[tuple[int, bool, int, float]]:
    return [(episode.seed, episode.success, episode.steps, episode.total_reward) for episode in record.episodes]


@pytest.fixture(scope="module")
def videos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation") / "videos"


@pytest.fixture(scope="module")
def finished(checkpoint: Path, videos_dir: Path) -> tuple[EvaluationRecord, list[Episode]]:
    seen: list[Episode] = []
    record = evaluate_policy(
        checkpoint,
        ToyEnvConfig(),
        SEEDS,
        workers=2,
        videos_dir=videos_dir,
        n_videos=4,
        on_episode=seen.append,
    )
    return record, seen


def test_record_holds_every_episode_in_the_order_of_seeds(
    finished: tuple[EvaluationRecord, list[Episode]],
) -> None:
    record, seen = finished
    assert [episode.seed for episode in record.episodes] == SEEDS
    assert {episode.seed for episode in seen} == set(SEEDS)
    successes = [episode.success for episode in record.episodes]
    assert 0 < sum(successes) < len(SEEDS), "the toy must separate seeds, or nothing here is tested"
    assert all(0 < episode.steps <= 12 and episode.seconds > 0 for episode in record.episodes)
    assert record.env["type"] == "pixio_toy"
    assert record.render_profile == "plain"
    assert record.versions["torch"] == torch.__version__.partition("+")[0]
    assert not record.crashes


def test_neither_workers_nor_order_change_the_result(
    checkpoint: Path, finished: tuple[EvaluationRecord, list[Episode]], videos_dir: Path, tmp_path: Path
) -> None:
    alone = evaluate_policy(
        checkpoint, ToyEnvConfig(), SEEDS[::-1], workers=1, videos_dir=tmp_path / "videos", n_videos=4
    )
    assert outcomes(alone)[::-1] == outcomes(finished[0])


def test_frames_that_are_not_rendered_change_nothing(tmp_path: Path) -> None:
    register_third_party_plugins()
    torch.manual_seed(0)
    policy_config = make_policy_config(
        "pixio_act",
        input_features={
            **{f"observation.images.{camera}": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)) for camera in CAMERAS},
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        encoder_weights="random",
        chunk_size=4,
        n_action_steps=4,
        dim_model=32,
        dim_feedforward=32,
        device="cpu",
    )
    statistics = {key: {"mean": torch.zeros(2), "std": torch.ones(2)} for key in ("observation.state", "action")}
    policy = get_policy_class("pixio_act")(policy_config)
    folder = tmp_path / "pretrained_model"
    policy.save_pretrained(folder)
    for processor in make_pre_post_processors(policy_config, dataset_stats=statistics):
        processor.save_pretrained(folder)
    env_config = ToyEnvConfig()
    all_seen = evaluate_policy(folder, env_config, SEEDS[:4], workers=1, videos_dir=tmp_path / "videos", n_videos=4)
    few_seen = evaluate_policy(folder, env_config, SEEDS[:4], workers=1)
    assert all(episode.video for episode in all_seen.episodes)
    assert outcomes(few_seen) == outcomes(all_seen)
    assert len({episode.total_reward for episode in few_seen.episodes}) == 4


@pytest.fixture(scope="module")
def batched(checkpoint: Path) -> EvaluationRecord:
    return evaluate_policy(checkpoint, ToyEnvConfig(), SEEDS[:10], workers=2, batch_size=4)


def test_batches_give_every_episode_to_the_last_bit_for_any_number_of_workers(
    checkpoint: Path, batched: EvaluationRecord, finished: tuple[EvaluationRecord, list[Episode]], tmp_path: Path
) -> None:
    assert len({episode.steps for episode in batched.episodes[:4]}) > 1, "all episodes of a batch end together"
    videos_dir = tmp_path / "videos"
    alone = evaluate_policy(
        checkpoint, ToyEnvConfig(), SEEDS[:10], workers=1, batch_size=4, videos_dir=videos_dir, n_videos=4
    )
    assert outcomes(alone) == outcomes(batched)
    assert sum(episode.video is not None for episode in alone.episodes) == 4
    # What a batch of another size may do is round otherwise.
    for ours, single in zip(outcomes(batched), outcomes(finished[0])[:10], strict=True):
        assert ours[:3] == single[:3]
        assert ours[3] == pytest.approx(single[3], rel=1e-4)


def test_a_batch_that_dies_is_repeated_one_by_one_with_the_same_result(
    checkpoint: Path, batched: EvaluationRecord, tmp_path: Path
) -> None:
    env_config = ToyEnvConfig(dies_once=[102], raises_always=[105], memory=str(tmp_path))
    record = evaluate_policy(checkpoint, env_config, SEEDS[:10], workers=1, batch_size=4)
    crashes = {(crash.seed, crash.attempt): crash.reason for crash in record.crashes}
    # Nobody knows which of the four killed the worker; an exception is its own episode's alone.
    assert crashes.keys() == {(100, 1), (101, 1), (102, 1), (103, 1), (105, 1), (105, 2)}
    assert "SIGKILL, in a batch of 4" in crashes[100, 1]
    assert "the simulation diverged" in crashes[105, 1]
    assert [outcome for outcome in outcomes(record) if outcome[0] != 105] == [
        outcome for outcome in outcomes(batched) if outcome[0] != 105
    ]
    assert [episode.seed for episode in record.episodes if episode.error is not None] == [105]


def test_a_hanging_simulator_costs_its_episode_and_not_the_run(
    checkpoint: Path, finished: tuple[EvaluationRecord, list[Episode]], tmp_path: Path
) -> None:
    env_config = ToyEnvConfig(hangs_once=[100], hangs_always=[102], memory=str(tmp_path))
    record = evaluate_policy(checkpoint, env_config, SEEDS[:4], workers=2, time_limit=4)
    crashes = {(crash.seed, crash.attempt): crash.reason for crash in record.crashes}
    assert crashes == dict.fromkeys(((100, 1), (102, 1), (102, 2)), "not over within 4 s")
    assert [episode.error for episode in record.episodes] == [None, None, "not over within 4 s", None]
    expected = outcomes(finished[0])[:4]
    assert [outcome for outcome in outcomes(record) if outcome[0] != 102] == expected[:2] + expected[3:]
    with pytest.raises(UserError, match="time limit above 0"):
        evaluate_policy(checkpoint, ToyEnvConfig(), SEEDS, workers=1, time_limit=0)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_lerobots_own_evaluation_agrees(
    batch_size: int, checkpoint: Path, finished: tuple[EvaluationRecord, list[Episode]], batched: EvaluationRecord
) -> None:
    # The steps of lerobot.scripts.lerobot_eval.eval_main, on one thread as in the workers.
    env_config = ToyEnvConfig()
    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.pretrained_path = checkpoint
    policy = make_policy(config, env_cfg=env_config)
    preprocessor, postprocessor = make_pre_post_processors(config, pretrained_path=str(checkpoint))
    env_preprocessor, env_postprocessor = make_env_pre_post_processors(env_config, config)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            theirs = eval_policy(
                env=env_config.create_envs(batch_size)["pixio_toy"][0],
                policy=policy,
                env_preprocessor=env_preprocessor,
                env_postprocessor=env_postprocessor,
                preprocessor=preprocessor,
                postprocessor=postprocessor,
                n_episodes=len(SEEDS),
                start_seed=SEEDS[0],
            )["per_episode"]
    finally:
        torch.set_num_threads(threads)
    ours = (finished[0] if batch_size == 1 else batched).episodes
    theirs = theirs[: len(ours)]
    assert [episode["success"] for episode in theirs] == [episode.success for episode in ours]
    # LeRobot counts the reward of one step too many where an episode ends before the others of its batch.
    batches = [ours[start : start + batch_size] for start in range(0, len(ours), batch_size)]
    last = [episode.steps == max(other.steps for other in batch) for batch in batches for episode in batch]
    assert sum(last) >= len(batches)
    assert [episode["sum_reward"] for episode, is_last in zip(theirs, last, strict=True) if is_last] == pytest.approx(
        [episode.total_reward for episode, is_last in zip(ours, last, strict=True) if is_last], rel=1e-6
    )


def test_videos_are_h264_with_every_frame_and_show_the_first_successes_and_failures(
    finished: tuple[EvaluationRecord, list[Episode]], videos_dir: Path
) -> None:
    episodes = finished[0].episodes
    shown = [episode for episode in episodes if episode.video is not None]
    failures = [episode for episode in episodes if not episode.success]
    successes = [episode for episode in episodes if episode.success]
    assert len(failures) >= 2
    assert len(successes) >= 2
    assert {episode.seed for episode in shown} == {episode.seed for episode in failures[:2] + successes[:2]}
    assert sorted(path.name for path in videos_dir.iterdir()) == sorted(Path(str(e.video)).name for e in shown)
    for episode in shown:
        with av.open(str(videos_dir.parent / str(episode.video))) as video:
            stream = video.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
            assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 10)
        assert len(frames) == episode.steps + 1
        height, width = frames[0].shape[:2]
        assert width == 2 * height
        assert height >= 256
        # The front camera on the left grows brighter by 20 with every step, to the terminal observation.
        brightness = [float(frame[:, 16 : width // 2 - 16].mean()) for frame in frames]
        np.testing.assert_allclose(brightness, 20 * np.arange(len(frames)), atol=6)


def test_a_dead_worker_costs_one_retry_and_is_reported(
    checkpoint: Path, finished: tuple[EvaluationRecord, list[Episode]], tmp_path: Path
) -> None:
    env_config = ToyEnvConfig(dies_once=[101], dies_always=[103], raises_always=[105], memory=str(tmp_path))
    record = evaluate_policy(checkpoint, env_config, SEEDS[:7], workers=2)
    crashes = {(crash.seed, crash.attempt): crash.reason for crash in record.crashes}
    assert crashes.keys() == {(101, 1), (103, 1), (103, 2), (105, 1), (105, 2)}
    assert "SIGKILL" in crashes[101, 1]
    assert "the simulation diverged" in crashes[105, 2]
    lost = [episode for episode in record.episodes if episode.error is not None]
    assert [(episode.seed, episode.success) for episode in lost] == [(103, False), (105, False)]
    # What did run, the repeated episode included, gives what it gives without crashes.
    expected = [outcome for outcome in outcomes(finished[0])[:7] if outcome[0] not in (103, 105)]
    assert [outcome for outcome in outcomes(record) if outcome[0] not in (103, 105)] == expected
    assert record.n_episodes == 7
    assert record.success_rate == sum(outcome[1] for outcome in expected) / 7


def test_an_evaluation_in_which_nothing_runs_is_no_success_rate(checkpoint: Path) -> None:
    with pytest.raises(RuntimeError, match="the simulation diverged"):
        evaluate_policy(checkpoint, ToyEnvConfig(raises_always=SEEDS), SEEDS, workers=1)


def test_an_environment_that_cannot_start_ends_with_its_sentence(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="install libegl1"):
        evaluate_policy(checkpoint, ToyEnvConfig(broken=True), SEEDS, workers=1)


@pytest.mark.parametrize(
    ("env_config", "words"),
    [
        (
            ToyEnvConfig(camera_names=["front", "side"]),
            ["observation.images.wrist", "observation.images.side"],
        ),
        (ToyEnvConfig(image_size=48), ["observation.images.front", "(3, 32, 32)", "(3, 48, 48)"]),
        (ToyEnvConfig(action_size=7), ["action", "(2,)", "(7,)"]),
    ],
    ids=["camera", "image size", "action size"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    checkpoint: Path, env_config: ToyEnvConfig, words: list[str]
) -> None:
    with pytest.raises(UserError, match="does not fit") as caught:
        evaluate_policy(checkpoint, env_config, SEEDS, workers=1)
    assert all(word in str(caught.value) for word in words)


def test_a_folder_that_is_no_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    def refusal(folder: Path) -> str:
        with pytest.raises(UserError) as caught:
            evaluate_policy(folder, ToyEnvConfig(), SEEDS, workers=1)
        return str(caught.value)

    assert "There is no checkpoint folder" in refusal(tmp_path / "nowhere")
    assert "config.json" in refusal(tmp_path)
    assert str(checkpoint) in refusal(checkpoint.parent)
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "type": "actt"}))
    assert "Did you mean 'act'?" in refusal(broken)
    (broken / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(broken)


def test_seeds_of_demonstrations_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="demonstrations"):
        evaluate_policy(checkpoint, ToyEnvConfig(), SEEDS, workers=1, demonstration_seeds=range(101))
    noted = shutil.copytree(checkpoint, tmp_path / "noted", copy_function=os.link)
    (noted / "pixio_run.json").write_text(json.dumps({"demonstration_seeds": [5, 111]}))
    with pytest.raises(UserError, match="111"):
        evaluate_policy(noted, ToyEnvConfig(), SEEDS, workers=1)
    with pytest.raises(UserError, match="twice"):
        evaluate_policy(checkpoint, ToyEnvConfig(), [7, 8, 7], workers=1)
    with pytest.raises(UserError, match="at least one"):
        evaluate_policy(checkpoint, ToyEnvConfig(), [], workers=1)
    with pytest.raises(UserError, match="at least 1 worker"):
        evaluate_policy(checkpoint, ToyEnvConfig(), SEEDS, workers=0)


def test_another_simulation_than_in_training_is_warned_of_once(
    checkpoint: Path,
    finished: tuple[EvaluationRecord, list[Episode]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    noted = shutil.copytree(checkpoint, tmp_path / "noted", copy_function=os.link)
    versions = finished[0].versions

    def warnings(env: dict, versions: dict) -> list[str]:
        caplog.clear()
        (noted / "pixio_run.json").write_text(json.dumps({"env": env, "versions": versions}))
        with caplog.at_level(logging.WARNING, logger="pixio_robot"):
            evaluate_policy(noted, ToyEnvConfig(), SEEDS[:2], workers=2)
        return [message.getMessage() for message in caplog.records if message.name.startswith("pixio_robot")]

    assert warnings(finished[0].env, versions) == []
    (warning,) = warnings({**finished[0].env, "render_profile": "standard"}, {**versions, "mujoco": "3.3.0"})
    assert "render profile standard then, plain now" in warning
    assert "mujoco 3.3.0 then" in warning


def test_the_fields_of_the_environment_reach_the_workers(checkpoint: Path) -> None:
    short = evaluate_policy(checkpoint, replace(ToyEnvConfig(), episode_length=2), SEEDS[:3], workers=1)
    assert [episode.steps for episode in short.episodes] == [2, 2, 2]
