"""The command `lerobot-eval` on a policy that was never trained, in every environment of other simulators."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lerobot.configs import FeatureType, NormalizationMode
from lerobot.envs.utils import env_to_policy_features
from lerobot.policies import make_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot_env_pixio import AlohaEnvConfig, MetaworldEnvConfig, PushTEnvConfig
from lerobot_env_pixio.configuration import PixioEnvConfig


def save_untrained_policy(config: PixioEnvConfig, folder: Path) -> None:
    """Write a small ACT with random weights for the environment, in LeRobot's format."""
    features = env_to_policy_features(config)
    policy_config = ACTConfig(
        input_features={key: value for key, value in features.items() if value.type is not FeatureType.ACTION},
        output_features={key: value for key, value in features.items() if value.type is FeatureType.ACTION},
        chunk_size=4,
        n_action_steps=4,
        dim_model=16,
        n_heads=2,
        dim_feedforward=16,
        n_encoder_layers=1,
        n_vae_encoder_layers=1,
        latent_dim=4,
        normalization_mapping={
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        },
        pretrained_backbone_weights=None,
        device="cpu",
        push_to_hub=False,
    )
    torch.manual_seed(0)
    ACTPolicy(policy_config).save_pretrained(folder)
    stats = {
        key: {"mean": torch.zeros(value.shape), "std": torch.ones(value.shape)}
        for key, value in features.items()
        if value.type is not FeatureType.VISUAL
    }
    for processor in make_pre_post_processors(policy_config, dataset_stats=stats):
        processor.save_pretrained(folder)


@pytest.mark.slow  # importing LeRobot and a simulator in a process for each takes half a minute
@pytest.mark.parametrize(
    ("config", "arguments"),
    [
        (MetaworldEnvConfig(image_size=64), ["--env.type=pixio_metaworld", "--env.task=drawer-open-v3"]),
        (AlohaEnvConfig(image_size=64), ["--env.type=pixio_aloha", "--env.task=transfer_cube"]),
        (PushTEnvConfig(image_size=64), ["--env.type=pixio_pusht"]),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_lerobot_eval_runs_the_environment(config: PixioEnvConfig, arguments: list[str], tmp_path: Path) -> None:
    save_untrained_policy(config, tmp_path / "policy")
    command = [
        *(sys.executable, "-m", "lerobot.scripts.lerobot_eval", f"--policy.path={tmp_path / 'policy'}"),
        *(*arguments, "--env.image_size=64", "--env.episode_length=6", "--policy.device=cpu"),
        *("--eval.n_episodes=2", "--eval.batch_size=2", f"--output_dir={tmp_path / 'out'}", "--seed=100000"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "out" / "eval_info.json").read_text())
    assert result["overall"]["n_episodes"] == 2
    assert list((tmp_path / "out" / "videos").rglob("*.mp4"))
