"""Exported `pixio_act` beside LeRobot's eager ACT with its ResNet18: time from camera frames to actions, in one run."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.envs.utils import preprocess_observation
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from torch import Tensor

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore, Feature
from pixio_robot.deployment.artifact import load_artifact
from pixio_robot.deployment.export.exporter import ExportOptions, export_opened
from pixio_robot.deployment.export.lerobot_policy import OpenedPolicy
from pixio_robot.deployment.verification import call_times
from pixio_robot.encoders import EncoderConfig
from pixio_robot.training.policy.building import build_policy, policy_config_from

_CAMERAS = ("agentview", "robot0_eye_in_hand")
_STATE_SIZE, _ACTION_SIZE = 9, 7  # of robosuite's Panda
LEROBOT = "LeRobot act, ResNet18, eager"


@dataclass(frozen=True)
class Row:
    """Times of one contestant, in milliseconds of single calls."""

    name: str
    parameters: float
    """Millions."""
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Contestant:
    """One way from an observation to actions."""

    name: str
    parameters: float
    call: Callable[[], Tensor]


def measure_latency(
    encoders: Mapping[str, EncoderConfig],
    policy: Mapping[str, Any],
    *,
    precisions: Sequence[str] = ("float32",),
    image_size: int = 128,
    threads: int = 1,
    rounds: int = 5,
    calls: int = 40,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Measure every encoder's artifact and LeRobot's ACT in turn, round after round, on the same two frames.

    LeRobot's time includes its own preparation of frames and its normalisation, as the artifact's includes ours.
    Its chunk is as long as ours, the rest of its config its default; weights do not matter for time and are random.

    Args:
        encoders: By the name of the row.
        policy: `type: pixio_act` and fields of its config.
        precisions: Of the exported encoders.
        image_size: Height and width in pixels of both cameras.
        threads: Of torch.
        rounds: How often every contestant has its turn.
        calls: In each turn.
        say: Is told what is being prepared.

    Raises:
        UserError: An encoder or a field is refused.
    """
    if policy.get("type") != "pixio_act":
        raise UserError(f"LeRobot's ACT is compared with pixio_act, not with {policy.get('type')}.")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        store = _random_store(Path(folder) / "demos.zarr", image_size)
        observation = {key: torch.from_numpy(store.read(key, 0, 2)) for key in store.features if key != "action"}
        contestants = [_lerobot(store, observation, int(policy["chunk_size"]))]
        for name, encoder in encoders.items():
            for precision in precisions:
                say(f"exporting {name} in {precision}")
                path = Path(folder) / f"{len(contestants)}.pt"
                contestants.append(
                    _exported(f"{name}, {precision}", encoder, policy, store, observation, path, precision)
                )
        times: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for contestant in contestants:
                times[contestant.name] += call_times(contestant.call, calls)
    return [_row(contestant, times[contestant.name]) for contestant in contestants]


def _row(contestant: Contestant, times: Sequence[float]) -> Row:
    p50, p95, p99 = torch.tensor(times).quantile(torch.tensor([0.5, 0.95, 0.99])).tolist()
    return Row(contestant.name, contestant.parameters, p50, p95, p99)


def rows_to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows ready for JSON, each with its p50 relative to LeRobot's."""
    lerobot = next(row for row in rows if row.name == LEROBOT)
    return [{**asdict(row), "ratio": row.p50 / lerobot.p50} for row in rows]


def _exported(
    name: str,
    encoder: EncoderConfig,
    policy: Mapping[str, Any],
    store: DemoStore,
    observation: Mapping[str, Tensor],
    path: Path,
    precision: str,
) -> Contestant:
    config = policy_config_from(policy, encoder, store)
    config.device = "cpu"
    built, processors = build_policy(config, store)
    millions = sum(parameter.numel() for parameter in built.parameters()) / 1e6
    export_opened(
        OpenedPolicy(path.parent, config, built, processors), observation, path, ExportOptions(precision=precision)
    )
    module, _ = load_artifact(path)
    one = {key: value[:1] for key, value in observation.items()}
    return Contestant(name, millions, lambda: module(one))


def _lerobot(store: DemoStore, observation: Mapping[str, Tensor], chunk_size: int) -> Contestant:
    ours = policy_config_from({"type": "pixio_act"}, EncoderConfig(weights="random"), store)
    config: Any = make_policy_config(
        "act",
        input_features=ours.input_features,
        output_features=ours.output_features,
        chunk_size=chunk_size,
        n_action_steps=chunk_size,
        pretrained_backbone_weights=None,
        push_to_hub=False,
        device="cpu",
    )
    policy = get_policy_class("act")(config).eval()
    statistics = {
        key: {name: torch.as_tensor(value) for name, value in values.items()}
        for key, values in store.statistics().items()
    }
    before, after = make_pre_post_processors(config, dataset_stats=statistics)
    cameras: dict[str, Any] = {name: observation[f"{OBS_IMAGES}.{name}"][:1].numpy() for name in _CAMERAS}
    raw: dict[str, Any] = {"pixels": cameras, "agent_pos": observation[OBS_STATE][:1].numpy()}

    def call() -> Tensor:
        return after(policy.predict_action_chunk(before(preprocess_observation(raw))))

    millions = sum(parameter.numel() for parameter in policy.parameters()) / 1e6
    return Contestant(LEROBOT, millions, call)


def _random_store(path: Path, image_size: int) -> DemoStore:
    """Write two random steps: neither side's time depends on what is in the frames."""
    generator = np.random.default_rng(0)
    frame = (image_size, image_size, 3)
    features = {f"{OBS_IMAGES}.{name}": Feature(frame, "uint8") for name in _CAMERAS}
    numbers = {OBS_STATE: _STATE_SIZE, "action": _ACTION_SIZE}
    features.update({key: Feature((size,), "float32") for key, size in numbers.items()})
    store = DemoStore.create(path, features, {"fps": 20})
    frames = {f"{OBS_IMAGES}.{name}": generator.integers(0, 256, (2, *frame), dtype=np.uint8) for name in _CAMERAS}
    measured = {key: generator.normal(size=(2, size)).astype(np.float32) for key, size in numbers.items()}
    store.append_episode({**frames, **measured}, seed=0, success=True, task="none")
    store.close()
    return DemoStore.open(path)
