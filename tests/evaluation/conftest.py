from pathlib import Path

import pytest
import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies import make_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from toy_plugin import CAMERAS


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeRobot's own ACT with random weights, saved as training saves it."""
    torch.manual_seed(0)
    images = {f"{OBS_IMAGES}.{camera}": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)) for camera in CAMERAS}
    config = ACTConfig(
        input_features={**images, OBS_STATE: PolicyFeature(FeatureType.STATE, (2,))},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
        normalization_mapping={
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        },
        pretrained_backbone_weights=None,
        chunk_size=4,
        n_action_steps=2,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        use_vae=False,
        device="cpu",
        push_to_hub=False,
    )
    # The mean action drifts, so that the policy succeeds in some directions and fails in others.
    statistics = {
        OBS_STATE: {"mean": torch.zeros(2), "std": torch.ones(2)},
        ACTION: {"mean": torch.tensor([0.2, 0.2]), "std": torch.full((2,), 0.2)},
    }
    folder = tmp_path_factory.mktemp("checkpoint") / "pretrained_model"
    ACTPolicy(config).save_pretrained(folder)
    for processor in make_pre_post_processors(config, dataset_stats=statistics):
        processor.save_pretrained(folder)
    return folder
