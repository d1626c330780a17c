"""Every neck under every policy, and what all policies share."""

import numpy as np
import torch
from jobs import composed
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import make_pre_post_processors
from lerobot_policy_pixio.neck import NECKS, SpatialSoftmaxNeck
from pytest import mark, raises
from tiny_policies import FRONT, SIZES, TINY, WRIST, make, random_batch, seeded

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderTokens


@mark.parametrize("neck", NECKS)
@mark.parametrize("policy_type", TINY)
def test_every_neck_serves_every_policy(policy_type: str, neck: str, tmp_path) -> None:
    """A step trains the neck and not the encoder; cached tokens equal images; a saved policy acts the same."""
    torch.manual_seed(0)
    policy = make(policy_type, neck=neck)
    batch = random_batch()
    cached = {key: value for key, value in batch.items() if key not in SIZES}
    for key in SIZES:
        cached[key.replace(".images.", ".tokens.")] = policy.encoder(batch[key]).flatten()

    policy.train()
    loss = seeded(policy, batch)[0]
    loss.backward()
    assert all(parameter.grad is None for parameter in policy.encoder.parameters())
    necks = list(policy.necks.values())
    assert (policy_type == "pixio_bc" and neck == "cls_mean") or all(
        any(parameter.grad.abs().sum() > 0 for parameter in each.parameters()) for each in necks
    )
    trainable = {id(parameter) for parameter in policy.get_optim_params()}
    assert trainable.isdisjoint(id(parameter) for parameter in policy.encoder.parameters())
    assert trainable >= {id(parameter) for each in necks for parameter in each.parameters()}

    policy.eval()
    torch.testing.assert_close(seeded(policy, cached)[0], seeded(policy, batch)[0])
    policy.save_pretrained(tmp_path)
    loaded = type(policy).from_pretrained(tmp_path)
    expected = seeded(policy.predict_action_chunk, batch)
    assert torch.equal(seeded(loaded.predict_action_chunk, batch), expected)
    assert expected.shape == (3, 2 if policy_type == "pixio_diffusion" else 4, 3)


@mark.parametrize(
    ("policy_type", "fields", "looks"),
    [
        ("pixio_act", {"n_action_steps": 3}, [0, 3, 6]),
        ("pixio_act", {"n_action_steps": 1, "temporal_ensemble_coeff": 0.01}, list(range(8))),
        ("pixio_bc", {"n_action_steps": 4}, [0, 4]),
        ("pixio_diffusion", {"horizon": 8, "n_action_steps": 5, "n_obs_steps": 2}, [0, 4, 5]),
    ],
)
def test_observations_that_a_policy_does_not_look_at_do_not_matter(policy_type, fields, looks) -> None:
    policy = make(policy_type, **fields).eval()
    observations = [random_batch(1, seed=step) for step in range(8)]

    def actions(blind: bool) -> torch.Tensor:
        policy.reset()
        chosen, seen = [], []
        for step, batch in enumerate(observations):
            if step == 0 or policy.looks_at_next_observation():
                seen.append(step)
            elif blind:
                batch = {**batch, **{key: torch.zeros_like(batch[key]) for key in SIZES}}
            torch.manual_seed(step)
            chosen.append(policy.select_action(batch))
        assert seen == looks
        return torch.stack(chosen)

    assert torch.equal(actions(blind=True), actions(blind=False))


@mark.parametrize(("neck", "sees_places"), [(neck, neck != "cls_mean") for neck in NECKS])
def test_necks_keep_positions(neck: str, sees_places: bool) -> None:
    torch.manual_seed(0)
    tokens = EncoderTokens(torch.randn(1, 8, 6), torch.randn(1, 2, 3, 6))
    mirrored = EncoderTokens(tokens.global_tokens, tokens.patch_tokens.flip(2))
    module = NECKS[neck](6, (2, 3), 4, 2, 10)
    assert module(tokens).shape == (1, 2, 10)
    assert torch.allclose(module(tokens), module(mirrored), atol=1e-5) != sees_places


def test_a_keypoint_is_where_its_channel_is_strong() -> None:
    neck = SpatialSoftmaxNeck(6, (3, 5), 2)
    weight = neck.keypoints.nets.weight
    torch.nn.init.zeros_(weight)
    with torch.no_grad():
        weight[0, 0], weight[1, 1] = 100.0, 100.0
    patches = torch.zeros(1, 3, 5, 6)
    patches[0, 2, 1, 0] = 1.0  # channel 0: last row, second of five columns
    patches[0, 0, 2, 1] = 1.0  # channel 1: first row, middle column
    xy = neck.features(EncoderTokens(torch.zeros(1, 8, 6), patches))[0, :4]
    torch.testing.assert_close(xy, torch.tensor([-0.5, 1.0, 0.0, -1.0]))


def test_flatten_keeps_the_parameter_names_of_earlier_checkpoints() -> None:
    linears = ("shrink_patches", "shrink_global", "mix.0", "mix.2", "normalise")
    assert {f"{name}.{part}" for name in linears for part in ("weight", "bias")} == set(
        NECKS["flatten"](6, (2, 3), 4, 1, 10).state_dict()
    )


@mark.parametrize("policy_type", TINY)
def test_wrong_inputs_are_named(policy_type: str) -> None:
    policy = make(policy_type)
    batch = random_batch()
    with raises(UserError, match="wrist brings images of 32×48 px, but the policy was made for 16×32 px"):
        policy({**batch, WRIST: batch[FRONT]})
    with raises(UserError, match="made by another encoder or image size"):
        policy({**batch, "observation.tokens.wrist": torch.zeros(3, 9, 192)})
    with raises(UserError, match="neither it nor observation.tokens.wrist"):
        policy({key: value for key, value in batch.items() if key != WRIST})
    with raises(UserError, match="Did you mean 'spatial_softmax'"):
        make(policy_type, neck="spatial_sofmax")
    with raises(UserError, match="at least one camera"):
        make(policy_type, input_features={"observation.state": PolicyFeature(FeatureType.STATE, (5,))})


@mark.parametrize("policy_type", TINY)
def test_token_noise_changes_training_alone_and_only_what_varies(policy_type: str) -> None:
    policy = make(policy_type, token_noise=1.0)
    varied = random_batch()
    alike = {key: value[:1].expand(3, *value.shape[1:]).clone() for key, value in varied.items()}

    def tokens(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return policy.camera_tokens(batch)[FRONT]

    policy.train()
    assert not torch.equal(tokens(varied), tokens(varied))
    torch.testing.assert_close(tokens(alike), tokens(alike))
    policy.eval()
    torch.testing.assert_close(tokens(varied), tokens(varied), rtol=0, atol=0)


@mark.parametrize("policy_type", TINY)
def test_lerobots_processors_are_found(policy_type: str) -> None:
    """State and action are scaled by the statistics, images are left to the encoder."""
    statistics = {
        "observation.state": {"mean": np.ones(5), "std": np.full(5, 2.0), "min": -np.ones(5), "max": np.full(5, 3.0)},
        "action": {"mean": np.ones(3), "std": np.full(3, 2.0), "min": -np.ones(3), "max": np.full(3, 3.0)},
    }
    statistics = {key: {name: torch.tensor(value) for name, value in each.items()} for key, each in statistics.items()}
    pre, post = make_pre_post_processors(make(policy_type).config, dataset_stats=statistics)
    batch = random_batch()
    seen = pre(dict(batch))
    torch.testing.assert_close(seen["observation.state"], (batch["observation.state"] - 1) / 2, rtol=1e-5, atol=1e-5)
    assert torch.equal(seen[FRONT], batch[FRONT])
    torch.testing.assert_close(post(seen["action"]), batch["action"], rtol=1e-5, atol=1e-5)


@mark.parametrize("policy", ["act", "bc", "diffusion"])
def test_each_config_names_the_choice_of_neck(policy: str) -> None:
    for neck in NECKS:
        assert composed("train_policy", f"policy={policy}", f"policy.neck={neck}")["policy"]["neck"] == neck


@mark.parametrize("mode", ["frozen", "finetune"])
@mark.parametrize("policy_type", TINY)
def test_lerobots_adapters_train_and_nothing_else(policy_type: str, mode: str) -> None:
    """`lerobot-train --peft.method_type=LORA` names no targets; the encoder gets adapters where it is not frozen."""
    policy = make(policy_type, encoder_mode=mode, pretrained_path="anywhere")
    adapted = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2})
    adapted.forward(random_batch())[0].backward()
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    moved = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert trained == moved and all("lora_" in name for name in trained)
    assert any(".encoder.backbone." in name for name in trained) == (mode == "finetune")
