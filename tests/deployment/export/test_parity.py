"""Every policy on every family of encoder in every format gives the eager path's actions, over a whole episode."""

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import ENCODERS, POLICIES, make_checkpoint, make_store
from fake_cuda import FakeGpu, run_on_meta

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.torch_files import open_torchscript
from pixio_robot.demos import DemoStore
from pixio_robot.deployment.artifact.loading import load_artifact
from pixio_robot.deployment.export.exporter import ExportOptions, export_policy
from pixio_robot.deployment.export.formats import FORMATS, suffix_of
from pixio_robot.deployment.export.lerobot_policy import open_policy
from pixio_robot.deployment.export.observations import episode_observations, largest_steps
from pixio_robot.deployment.verification import PARITY_TOLERANCE, difference_between

# Each policy, encoder and format once or twice; the others are slow tests, pixio_act on pixio_tiny16 in test_whole_way.py.
FEW = {
    ("pixio_act", "vit_tiny_patch16_224", "torchscript"),
    ("pixio_diffusion", "torchscript", "torchscript"),
    ("pixio_bc", "resnet18", "pt2"),
    ("pixio_bc", "pixio_tiny16", "onnx"),
}
ALL = [(policy, encoder, format_) for policy in POLICIES for encoder in ENCODERS for format_ in FORMATS]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    return make_store(tmp_path_factory.mktemp("demos") / "demos.zarr")


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    return make_store(tmp_path_factory.mktemp("demos") / "two.zarr", ("open the door", "close the door"))


@pytest.mark.parametrize(
    ("policy", "encoder", "format_"),
    [pytest.param(*case, marks=[] if case in FEW else pytest.mark.slow) for case in ALL],
)
def test_parity_over_an_episode(policy: str, encoder: str, format_: str, two_tasks: DemoStore, tmp_path: Path) -> None:
    store = two_tasks  # policies of one task are in test_whole_way.py
    checkpoint = make_checkpoint(policy, encoder, store, tmp_path)
    options = ExportOptions(format_, sampling_steps=3 if policy == "pixio_diffusion" else None)
    path = tmp_path / f"policy{suffix_of(format_)}"
    exported = export_policy(checkpoint, store, path, options)
    module, metadata = load_artifact(path)
    assert metadata == exported
    opened = open_policy(checkpoint, options.sampling_steps)
    # The last episode, which no export was checked on.
    observed = opened.observed(episode_observations(store, opened.layout.observation_steps, episode=-1), seed=7)
    expected = opened.eager(observed)
    assert expected.std(dim=0).max() > 1e-3  # the observations matter
    assert metadata["tasks"] == ["open the door", "close the door"]
    other = opened.eager({**observed, "task": 1 - observed["task"]})
    assert (other - expected).abs().max() > 1e-3  # and so does the task
    for row in range(len(expected)):  # one at a time, as a robot does
        got = module({key: value[row : row + 1] for key, value in observed.items()})
        torch.testing.assert_close(got, expected[row : row + 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module(observed), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module(module.golden_observation), module.golden_output, rtol=1e-5, atol=1e-5)
    assert metadata["action_horizon"] == expected.shape[1]
    if torch.cuda.is_available() and format_ != "onnx":  # where there is no GPU, the fake one below
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            on_gpu = load_artifact(path, "cuda")[0](observed)
        assert on_gpu.device.type == "cuda"
        torch.testing.assert_close(on_gpu.cpu(), expected, rtol=1e-3, atol=1e-3)
    if format_ == "torchscript":
        with pytest.raises(Exception, match="task must be a number from 0 to 1"):
            module({**observed, "task": observed["task"] + 1})
        code = module.core.code
        # A device in its code would be the one that it was traced on, wherever it is loaded; nor is other code called.
        assert "torch.device(" not in code and ".forward(" not in code
        on_gpu = FakeGpu().run_artifact(module, observed)
        assert on_gpu.device.type == "cuda" and on_gpu.shape[-2:] == expected.shape[-2:]
    if format_ == "pt2":
        on_gpu = FakeGpu().run_program(torch.export.load(path), observed)
        assert on_gpu.device.type == "cuda" and on_gpu.shape == expected.shape


def test_the_largest_steps_are_those_within_episodes(store: DemoStore) -> None:
    episodes = [store.episode(number)["action"] for number in range(store.num_episodes)]
    steps = largest_steps(store)
    within = np.max([np.abs(np.diff(actions, axis=0)).max(axis=0) for actions in episodes], axis=0)
    assert steps["largest_change"] == pytest.approx(within)
    assert steps["largest_value"] == pytest.approx(np.abs(np.concatenate(episodes)).max(axis=0))


class _OnTwoDevices(torch.nn.Module):
    """Adds numbers that stay on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(3))
        self.constant = torch.ones(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight + self.constant


def test_the_fake_gpu_refuses_what_a_real_one_would() -> None:
    gpu = FakeGpu()
    model = _OnTwoDevices()
    with pytest.raises(RuntimeError):
        gpu.run_script(torch.jit.trace(model, torch.zeros(2, 3)), gpu.tensor(torch.zeros(2, 3)))
    model.constant = model.weight
    moved = gpu.run_script(torch.jit.trace(model, torch.zeros(2, 3)), gpu.tensor(torch.zeros(2, 3)))
    assert moved.device.type == "cuda"


def test_half_precision_on_a_gpu(store: DemoStore, tmp_path: Path) -> None:
    checkpoint = make_checkpoint("pixio_bc", "pixio_tiny16", store, tmp_path)
    observed = episode_observations(store, POLICIES["pixio_bc"]["n_obs_steps"])
    export_policy(checkpoint, store, tmp_path / "policy.pt", ExportOptions(precision="float16"))
    module, _ = load_artifact(tmp_path / "policy.pt")
    assert FakeGpu().run_artifact(module, observed).device.type == "cuda"
    if torch.cuda.is_available():
        on_gpu, expected = load_artifact(tmp_path / "policy.pt", "cuda")[0](observed), module(observed)
        assert difference_between(on_gpu, expected, "float16") <= PARITY_TOLERANCE["float16"]


def test_an_artifact_brings_observations_to_its_own_device(store: DemoStore, tmp_path: Path) -> None:
    checkpoint = make_checkpoint("pixio_bc", "torchscript", store, tmp_path)
    observed = episode_observations(store, POLICIES["pixio_bc"]["n_obs_steps"])
    export_policy(checkpoint, store, tmp_path / "policy.pt")
    actions = run_on_meta(open_torchscript(tmp_path / "policy.pt", "meta"), observed)
    assert {value.device.type for value in observed.values()} == {"cpu"}
    assert actions.device.type == "meta"


def test_metadata_says_what_a_robot_needs(store: DemoStore, tmp_path: Path) -> None:
    checkpoint = make_checkpoint("pixio_diffusion", "pixio_tiny16", store, tmp_path)
    options = ExportOptions(precision="bfloat16", sampling_steps=2, action_names=["x", "y", "grip"])
    metadata = export_policy(checkpoint, store, tmp_path / "policy.pt", options)
    assert [(camera["key"], camera["height"], camera["width"]) for camera in metadata["cameras"]] == [
        ("observation.images.wrist", 32, 64),
        ("observation.images.front", 32, 32),
    ]
    assert metadata["observation_horizon"] == 2
    assert metadata["action_horizon"] == 7  # of 8, one lies before the present
    assert metadata["executed_actions"] == 3
    assert metadata["control_rate_hz"] == 20
    assert metadata["sampling_steps"] == 2
    assert metadata["noise"] == {"key": "noise", "shape": [8, 3]}
    actions = store.read("action", 0, store.num_steps)
    assert metadata["action"]["minimum"] == pytest.approx(actions.min(axis=0).tolist())
    assert metadata["action"]["maximum"] == pytest.approx(actions.max(axis=0).tolist())
    assert metadata["action"]["limits_from"] == "demonstrations"
    assert metadata["action"]["names"] == ["x", "y", "grip"]
    assert metadata["normalisation"]["action"]["mode"] == "MIN_MAX"
    assert 1e-6 < metadata["parity"]["difference"] < 0.1  # of bfloat16
    assert metadata["state"]["names"] == store.names["observation.state"]
    (checkpoint / "pixio_run.json").write_text('{"names": {"action": ["dx", "dy", "dgrip"]}}')
    assert open_policy(checkpoint, 2).metadata()["action"]["names"] == ["dx", "dy", "dgrip"]  # what it was trained with
    with pytest.raises(UserError, match="action_names has 1 names, but the policy has 3"):
        export_policy(checkpoint, store, tmp_path / "other.pt", ExportOptions(action_names=["x"]))
    with pytest.raises(UserError, match="sampling_steps=101 must lie between 1 and 100"):
        export_policy(checkpoint, store, tmp_path / "other.pt", ExportOptions(sampling_steps=101))
    assert not (tmp_path / "other.pt").exists()
