"""The smallest policy of each kind on random weights, and batches that fit it."""

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class, make_policy_config
from lerobot.utils.import_utils import register_third_party_plugins

FRONT, WRIST = "observation.images.front", "observation.images.wrist"


SIZES = {FRONT: (32, 48), WRIST: (16, 32)}  # cameras may differ in size


TINY = {
    "pixio_act": {"chunk_size": 4, "n_action_steps": 2, "dim_model": 32, "dim_feedforward": 32, "dropout": 0.0},
    "pixio_diffusion": {"horizon": 4, "n_action_steps": 2, "down_dims": [8, 16], "diffusion_step_embed_dim": 8},
    "pixio_bc": {"n_obs_steps": 1, "chunk_size": 4, "n_action_steps": 2, "hidden_width": 16},
}


def make(policy: str, **fields):
    register_third_party_plugins()
    config = make_policy_config(
        policy,
        **{
            "input_features": {
                **{key: PolicyFeature(FeatureType.VISUAL, (3, *size)) for key, size in SIZES.items()},
                "observation.state": PolicyFeature(FeatureType.STATE, (5,)),
            },
            "output_features": {"action": PolicyFeature(FeatureType.ACTION, (3,))},
            "device": "cpu",
            "encoder_weights": "random",
            "neck_width": 4,
            **TINY[policy],
            **fields,
        },
    )
    return get_policy_class(policy)(config)


def random_batch(size: int = 3, steps: tuple[int, ...] = (), seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        **{key: torch.rand(size, *steps, 3, *hw, generator=generator) for key, hw in SIZES.items()},
        "observation.state": torch.randn(size, *steps, 5, generator=generator),
        "action": torch.randn(size, 4, 3, generator=generator),
        "action_is_pad": torch.zeros(size, 4, dtype=torch.bool),
    }


def seeded(call, *arguments, **named):
    torch.manual_seed(1)
    return call(*arguments, **named)
