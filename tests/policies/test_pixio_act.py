"""pixio_act: discovered by LeRobot, cached tokens equal images, frozen stays frozen, checkpoints are complete."""

import subprocess
import sys

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies import PreTrainedPolicy
from lerobot_policy_pixio import PixioACTConfig
from lerobot_policy_pixio.modeling_pixio_act import PixioACTPolicy
from pytest import mark, raises
from safetensors.torch import load_file, save_file

from pixio_robot.common.errors import UserError

CAMERAS = ("observation.images.front", "observation.images.wrist")


def small_config(**fields) -> PixioACTConfig:
    return PixioACTConfig(
        input_features={
            **{key: PolicyFeature(FeatureType.VISUAL, (3, 64, 96)) for key in CAMERAS},
            "observation.state": PolicyFeature(FeatureType.STATE, (5,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (3,))},
        device="cpu",
        encoder_weights="random",
        chunk_size=6,
        n_action_steps=3,
        dim_model=32,
        dim_feedforward=64,
        **fields,
    )


def random_batch(size: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        **{key: torch.rand(size, 3, 64, 96, generator=generator) for key in CAMERAS},
        "observation.state": torch.randn(size, 5, generator=generator),
        "action": torch.randn(size, 6, 3, generator=generator),
        "action_is_pad": torch.zeros(size, 6, dtype=torch.bool),
    }


def test_lerobot_discovers_the_plugin_without_a_flag() -> None:
    code = (
        "from lerobot.utils.import_utils import register_third_party_plugins as r; r();"
        "from lerobot.policies.factory import get_policy_class; print(get_policy_class('pixio_act').__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "PixioACTPolicy"


@mark.parametrize("use_vae", [False, True])
def test_cached_tokens_give_the_loss_of_images(use_vae: bool) -> None:
    policy = PixioACTPolicy(small_config(use_vae=use_vae)).eval()
    batch = random_batch()
    cached = {key: value for key, value in batch.items() if key not in CAMERAS}
    for key in CAMERAS:
        cached[f"observation.tokens.{key.split('.')[-1]}"] = policy.encoder(batch[key]).flatten()
    assert policy(batch)[0].item() == policy(cached)[0].item()


def test_every_camera_matters_and_they_are_told_apart() -> None:
    torch.manual_seed(0)
    policy = PixioACTPolicy(small_config())
    batch = random_batch()
    swapped = {**batch, CAMERAS[0]: batch[CAMERAS[1]], CAMERAS[1]: batch[CAMERAS[0]]}
    assert not torch.allclose(policy.predict_action_chunk(batch), policy.predict_action_chunk(swapped))


def test_positions_survive_the_neck() -> None:
    """Moving a bright square by one patch changes the actions, even though the set of tokens is similar."""
    torch.manual_seed(0)
    policy = PixioACTPolicy(small_config())
    left, right = random_batch(1), random_batch(1)
    for batch, column in ((left, 0), (right, 16)):
        batch[CAMERAS[0]] = torch.zeros(1, 3, 64, 96)
        batch[CAMERAS[0]][:, :, :16, column : column + 16] = 1.0
    difference = (policy.predict_action_chunk(left) - policy.predict_action_chunk(right)).abs().max()
    assert difference > 1e-4


def test_training_moves_the_policy_and_not_the_frozen_encoder() -> None:
    torch.manual_seed(0)
    policy = PixioACTPolicy(small_config(dropout=0.0))
    before = {key: value.clone() for key, value in policy.encoder.state_dict().items()}
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-3)
    batch = random_batch()
    first = policy(batch)[0].item()
    for _ in range(60):
        policy.train()
        loss, _ = policy(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first
    assert all(torch.equal(before[key], value) for key, value in policy.encoder.state_dict().items())


def test_finetuning_reaches_the_encoder() -> None:
    policy = PixioACTPolicy(small_config(encoder_mode="finetune"))
    policy.train()
    policy(random_batch())[0].backward()
    assert policy.encoder.backbone.patch_embed.proj.weight.grad.abs().sum() > 0


def test_padded_actions_do_not_count() -> None:
    policy = PixioACTPolicy(small_config()).eval()
    batch = random_batch()
    batch["action_is_pad"][:, 4:] = True
    expected = policy(batch)[0].item()
    batch["action"][:, 4:] += 100
    assert policy(batch)[0].item() == expected


def test_checkpoint_brings_its_own_encoder(tmp_path) -> None:
    """The config says `pretrained` for weights that are not here; loading must not go looking for them."""
    policy = PixioACTPolicy(small_config()).eval()
    policy.config.encoder_weights = "/nowhere/at/all.safetensors"
    policy.save_pretrained(tmp_path)
    loaded: PreTrainedPolicy = PixioACTPolicy.from_pretrained(tmp_path)
    batch = random_batch()
    assert torch.equal(loaded.predict_action_chunk(batch), policy.predict_action_chunk(batch))


def test_incomplete_checkpoint_is_refused(tmp_path) -> None:
    PixioACTPolicy(small_config()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("model.action_head.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with raises(UserError, match="incomplete"):
        PixioACTPolicy.from_pretrained(tmp_path)


def test_another_environment_is_named_and_no_damage(tmp_path) -> None:
    """LeRobot's tools put the features of their environment or dataset into the config of a checkpoint."""
    PixioACTPolicy(small_config()).save_pretrained(tmp_path)
    config = small_config()
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (4,))}
    with raises(UserError, match=r"action is of shape \(4,\), in training of shape \(3,\)"):
        PixioACTPolicy.from_pretrained(tmp_path, config=config)


def test_no_camera_is_refused() -> None:
    config = small_config()
    config.input_features = {
        "observation.environment_state": PolicyFeature(FeatureType.ENV, (4,)),
        "observation.state": PolicyFeature(FeatureType.STATE, (5,)),
    }
    with raises(UserError, match="at least one camera"):
        PixioACTPolicy(config)
