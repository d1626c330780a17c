"""One policy for several tasks: told apart by their sentences, here and in LeRobot's training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import POLICIES
from policy_speed.clock import StepClock
from policy_speed.lerobot_training import LeRobotTraining, lerobot_dataset
from toy_run import CAMERAS, ENCODER, make_store, run_training

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.evaluation.checkpoints import open_checkpoint
from pixio_robot.training.data.batches import TrainingBatches, Windows
from pixio_robot.training.policy.building import build_policy, policy_config_from
from pixio_robot.training.policy.starting_point import described_by, load_starting_point

TASKS = ("open the door", "close the door")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    return make_store(tmp_path_factory.mktemp("demos") / "toy.zarr", tasks=TASKS)


def fields(policy: str, **others: Any) -> dict[str, Any]:
    """Describe a small policy that predicts four actions at once."""
    length = "horizon" if policy == "pixio_diffusion" else "chunk_size"
    return {"type": policy, **POLICIES[policy], length: 4, **others}


@pytest.mark.parametrize("policy_type", POLICIES)
def test_the_sentence_decides_and_is_kept(policy_type: str, store: DemoStore, tmp_path: Path) -> None:
    config: Any = policy_config_from(fields(policy_type), ENCODER, store)
    assert config.tasks == TASKS
    policy: Any = build_policy(config, store)[0]
    batch = TrainingBatches(store, CAMERAS, Windows.of(config), 18, seed=0, cache=None).batch(0)
    of_second = (batch["index"] >= 5) & (batch["index"] < 11)  # episodes of 5, 6 and 7 steps
    assert batch["task"] == [TASKS[int(second)] for second in of_second]

    policy.train()
    policy(batch)[0].backward()
    assert (policy.task_embedding.weight.grad.abs().sum(dim=1) > 0).all()

    policy.save_pretrained(tmp_path)
    loaded: Any = type(policy).from_pretrained(tmp_path)
    noise = {"noise": torch.zeros(18, 4, 3)} if policy_type == "pixio_diffusion" else {}
    chunks = {task: loaded.predict_action_chunk({**batch, "task": [task] * 18}, **noise) for task in TASKS}
    assert not torch.allclose(chunks[TASKS[0]], chunks[TASKS[1]], atol=1e-4)
    by_number = loaded.predict_action_chunk({**batch, "task": torch.ones(18, dtype=torch.int64)}, **noise)
    assert torch.equal(by_number, chunks[TASKS[1]])

    newest = {key: value[:, -1] if config.n_obs_steps > 1 else value for key, value in batch.items() if key in CAMERAS}
    newest["observation.state"] = batch["observation.state"].reshape(18, -1, 5)[:, -1]
    acted = []
    for task in TASKS:
        loaded.reset()
        loaded.episode_seeds = list(range(18))
        acted.append(loaded.select_action({**newest, "task": [task] * 18}))
    assert not torch.allclose(*acted, atol=1e-4)

    with pytest.raises(UserError, match="not trained on the task 'open the dor'. Did you mean 'open the door'"):
        loaded.predict_action_chunk({**batch, "task": ["open the dor"] * 18})
    with pytest.raises(UserError, match="does 2 tasks and has to be told which"):
        loaded.predict_action_chunk({key: value for key, value in batch.items() if key != "task"})


def test_one_task_or_none_to_be_told_changes_nothing(store: DemoStore, tmp_path: Path) -> None:
    single = make_store(tmp_path / "single.zarr")
    names = [
        set(build_policy(policy_config_from(given, ENCODER, demos), demos)[0].state_dict())
        for given, demos in (
            (fields("pixio_act"), single),
            (fields("pixio_act", condition_on_task=False), store),
            (fields("pixio_act"), store),
        )
    ]
    assert names[0] == names[1]
    assert names[2] - names[0] == {
        "task_embedding.weight",
        "model.encoder_env_state_input_proj.weight",
        "model.encoder_env_state_input_proj.bias",
    }
    config: Any = policy_config_from(fields("pixio_act"), ENCODER, store, num_episodes=1)
    assert config.tasks == ()  # the first episode has one


def test_a_training_goes_on_with_the_tasks_of_its_start_and_no_others(store: DemoStore, tmp_path: Path) -> None:
    checkpoint = run_training(store.path, tmp_path / "run", policy=fields("pixio_bc"))
    description, encoder = described_by(checkpoint, {}, {})
    one = make_store(tmp_path / "one.zarr", tasks=TASKS[1:])
    config: Any = policy_config_from(description, encoder, one)
    assert config.tasks == TASKS
    load_starting_point(build_policy(config, one)[0], checkpoint)
    with pytest.raises(UserError, match="demonstrations of 'knock', which is none of policy.tasks"):
        policy_config_from(description, encoder, make_store(tmp_path / "other.zarr", tasks=("knock",)))


def test_lerobots_training_tells_tasks_apart(store: DemoStore, tmp_path: Path) -> None:
    root = lerobot_dataset(store, tmp_path, use_videos=False)
    policy = fields("pixio_act", encoder_weights="random")
    training = LeRobotTraining(root, policy, 4, 0, tmp_path / "run")
    before = training.policy.task_embedding.weight.detach().clone()
    training.run(4, StepClock())
    assert not torch.equal(training.policy.task_embedding.weight, before)
    config: Any = open_checkpoint(training.save())
    assert set(config.tasks) == set(TASKS)
