"""Tasks for code that knows gymnasium alone: ids, its own checks, and what a wrong call says."""

import re
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from lerobot_env_pixio.simulators import environment_classes


def test_every_task_has_an_id() -> None:
    for env_type, kind in environment_classes().items():
        names = {name.rpartition("/")[2] for name in gymnasium.registry if name.startswith(f"{env_type}/")}
        assert names == {task if re.search(r"-v\d+$", task) else f"{task}-v0" for task in kind.tasks}


@pytest.mark.parametrize("name", ["pixio_pusht/PushT-v0", "pixio_robosuite/Lift-v0", "pixio_metaworld/reach-v3"])
def test_gymnasium_finds_nothing_wrong(name: str) -> None:
    env = gymnasium.make(name, image_size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", ".*we recommend using a symmetric and normalized space.*"
        )  # a disc's place in px
        check_env(env.unwrapped)
    env.close()


@pytest.fixture(scope="module")
def aloha():
    env = gymnasium.make("pixio_aloha/transfer_cube-v0", image_size=16).unwrapped
    yield env
    env.close()


@pytest.mark.parametrize("call", ["step", "render"])
def test_reset_comes_first(call: str) -> None:
    env = gymnasium.make("pixio_pusht/PushT-v0").unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded, match=f"PushT: call reset before {call}"):
        env.step(np.zeros(2)) if call == "step" else env.render()


def test_an_action_of_another_kind_is_refused(aloha: gymnasium.Env) -> None:
    aloha.reset(seed=0)
    for shape in ((15,), (13,), (1, 14), ()):
        with pytest.raises(ValueError, match=r"transfer_cube has the shape \(14,\), for left_waist"):
            aloha.step(np.zeros(shape, np.float32))
    action = np.zeros(14, np.float32)
    action[[3, 13]] = np.nan, np.inf
    with pytest.raises(ValueError, match="in step 0 is not finite: left_forearm_roll.pos, right_gripper.pos"):
        aloha.step(action)
    observation, *_ = aloha.step(np.zeros(14, np.float32))  # nothing was simulated by what was refused
    assert np.isfinite(observation["agent_pos"]).all()


def test_a_screen_is_refused() -> None:
    with pytest.raises(ValueError, match="render_mode='rgb_array', not 'human'"):
        gymnasium.make("pixio_pusht/PushT-v0", render_mode="human")
