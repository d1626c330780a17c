"""Checkpoints of untrained policies on every family of encoder, and observations that fit them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixio_robot.demos import DemoStore, Feature
from pixio_robot.encoders import EncoderConfig
from pixio_robot.training.policy.building import build_policy, policy_config_from

CAMERAS = {"observation.images.wrist": (32, 64), "observation.images.front": (32, 32)}
STATE_SIZE, ACTION_SIZE = 5, 3
POLICIES: dict[str, dict[str, Any]] = {
    "pixio_act": {"chunk_size": 6, "n_action_steps": 3, "dim_model": 32, "dim_feedforward": 64, "n_encoder_layers": 1},
    "pixio_diffusion": {"horizon": 8, "n_action_steps": 3, "n_obs_steps": 2, "down_dims": (16, 32)},
    "pixio_bc": {"n_obs_steps": 3, "chunk_size": 4, "n_action_steps": 2, "hidden_width": 32},
}
ENCODERS = ("pixio_tiny16", "vit_tiny_patch16_224", "resnet18", "torchscript")


def make_store(path: Path, tasks: tuple[str, str] = ("toy", "toy")) -> DemoStore:
    """Write two random episodes of seven steps."""
    features = {
        **{key: Feature((*size, 3), "uint8") for key, size in CAMERAS.items()},
        "observation.state": Feature((STATE_SIZE,), "float32"),
        "action": Feature((ACTION_SIZE,), "float32"),
    }
    names = {"observation.state": [f"joint {number}" for number in range(STATE_SIZE)]}
    store = DemoStore.create(path, features, {"fps": 20, "env": {"type": "toy"}, "names": names})
    generator = np.random.default_rng(0)
    for seed in range(2):
        episode = {
            "observation.state": generator.normal(3, 2, (7, STATE_SIZE)).astype(np.float32),
            "action": generator.normal(-1, 3, (7, ACTION_SIZE)).astype(np.float32),
        }
        frames = {key: generator.integers(0, 256, (7, *size, 3), dtype=np.uint8) for key, size in CAMERAS.items()}
        store.append_episode({**frames, **episode}, seed=seed, success=True, task=tasks[seed])
    store.close()
    return DemoStore.open(path)


class _Patches(torch.nn.Module):
    """A user's encoder: patches of 8 px, projected."""

    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Conv2d(3, 24, 8, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(images.shape[-1] // 8, device=images.device)
        return torch.tanh(self.project(images)) + positions


def encoder_config(name: str, folder: Path) -> EncoderConfig:
    """Return an encoder with random weights, or a TorchScript file of a made-up one."""
    if name != "torchscript":
        return EncoderConfig(name, weights="random")
    torch.jit.script(_Patches()).save(str(folder / "encoder.pt"))
    return EncoderConfig("torchscript", str(folder / "encoder.pt"))


def make_checkpoint(policy: str, encoder: str, store: DemoStore, folder: Path) -> Path:
    """Write a checkpoint of an untrained policy whose statistics are the store's."""
    torch.manual_seed(0)
    fields = {"type": policy, **POLICIES[policy]}
    config = encoder_config(encoder, folder)
    built, processors = build_policy(policy_config_from(fields, config, store), store)
    for module in built.modules():  # statistics of a batch that training would have gathered
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    checkpoint = folder / f"{policy}_{encoder}"
    built.save_pretrained(checkpoint)
    for processor in processors:
        processor.save_pretrained(checkpoint)
    return checkpoint
