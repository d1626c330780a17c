"""pixio_diffusion and pixio_bc, and every neck under every policy."""

import numpy as np
import torch
from jobs import composed
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot_policy_pixio.modeling_pixio_bc import fuse_history
from lerobot_policy_pixio.neck import NECKS, SpatialSoftmaxNeck
from pytest import mark, raises

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import EncoderTokens

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


@mark.parametrize("policy_type", ["pixio_diffusion", "pixio_bc"])
def test_training_fits_a_batch(policy_type: str) -> None:
    torch.manual_seed(0)
    policy = make(policy_type).train()
    batch = random_batch()
    for key in SIZES:
        batch[key.replace(".images.", ".tokens.")] = policy.encoder(batch[key]).flatten()
    optimizer = torch.optim.Adam(policy.get_optim_params(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = seeded(policy, batch)[0]  # the same noise every time
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


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


@mark.parametrize("policy_type", ["pixio_diffusion", "pixio_bc"])
def test_finetuning_reaches_the_encoder_and_padding_does_not_count(policy_type: str) -> None:
    policy = make(policy_type, encoder_mode="finetune")
    batch = random_batch()
    batch["action_is_pad"][0] = True  # the first window lies outside its episode
    loss = seeded(policy.eval(), batch)[0]
    loss.backward()
    assert policy.encoder.backbone.patch_embed.proj.weight.grad.abs().sum() > 0
    batch["action"][0] += 100
    assert seeded(policy, batch)[0].item() == loss.item()
    batch["action"][1] += 100
    assert seeded(policy, batch)[0].item() != loss.item()


def test_ddim_finds_the_actions_when_the_noise_is_predicted_rightly() -> None:
    """The U-Net's place is taken by the exact noise, ε = (x_t − √ᾱ·x_0) / √(1 − ᾱ); Ho et al., equation 4."""
    policy = make("pixio_diffusion")
    schedule = policy.diffusion.noise_scheduler.alphas_cumprod
    truth = torch.rand(3, 4, 3) * 1.8 - 0.9

    class ExactNoise(torch.nn.Module):
        calls = 0

        def forward(self, sample, timesteps, global_cond):
            self.calls += 1
            kept = schedule[timesteps][:, None, None]
            return (sample - kept.sqrt() * truth) / (1 - kept).sqrt()

    policy.diffusion.unet = ExactNoise()
    policy.diffusion.register_parameter("device", torch.nn.Parameter(torch.zeros(1)))
    actions = policy.predict_action_chunk(random_batch(), noise=torch.randn(3, 4, 3))
    torch.testing.assert_close(actions, truth[:, :2], rtol=1e-4, atol=1e-4)
    assert policy.diffusion.unet.calls == 10


def test_sampling_follows_each_rows_own_episode_and_the_noise_given() -> None:
    policy = make("pixio_diffusion")
    first_of_three = {key: value[:1] for key, value in random_batch().items()}
    batch = {key: value.expand(3, *value.shape[1:]) for key, value in first_of_three.items()}  # the same in every row

    def rollout(observation, **noise):
        policy.reset()
        return torch.stack([policy.select_action(observation, **noise) for _ in range(4)])

    policy.episode_seeds = [100, 101, 100]
    together = rollout(batch)
    torch.manual_seed(5)
    assert torch.equal(rollout(batch), together)
    torch.testing.assert_close(together[:, 0], together[:, 2], rtol=0, atol=1e-4)  # the same episode in another row
    assert not torch.allclose(together[:, 0], together[:, 1])  # another episode, other noise
    assert not torch.allclose(together[0], together[2])  # another chunk, other noise
    policy.episode_seeds = [101]
    torch.testing.assert_close(rollout(first_of_three), together[:, 1:2], rtol=0, atol=1e-4)
    policy.episode_seeds = None  # in a loop that says none: torch's generator decides
    torch.manual_seed(5)
    drawn = rollout(batch)
    assert not torch.allclose(drawn[:, 0], drawn[:, 1])
    assert not torch.allclose(rollout(batch), drawn)
    torch.manual_seed(5)
    assert torch.equal(rollout(batch), drawn)
    noise = torch.randn(3, 4, 3)
    given = rollout(batch, noise=noise)
    assert torch.equal(given[:2], policy.predict_action_chunk(batch, noise=noise).transpose(0, 1))
    assert torch.equal(given[:2], given[2:])


def test_fused_history_is_cortexbenchs() -> None:
    """concat(e1 − e0, e2 − e1, e2), as FACTS of the protocol state it; a single frame is itself."""
    e = torch.randn(2, 3, 4)
    torch.testing.assert_close(fuse_history(e), torch.cat([e[:, 1] - e[:, 0], e[:, 2] - e[:, 1], e[:, 2]], dim=1))
    assert torch.equal(fuse_history(e[:, 2:]), e[:, 2])


@mark.parametrize("policy_type", ["pixio_diffusion", "pixio_bc"])
def test_history_starts_with_the_first_observation_and_ends_with_the_last(policy_type: str) -> None:
    policy = make(policy_type, n_obs_steps=3, n_action_steps=1)
    assert policy.config.observation_delta_indices == [-2, -1, 0]
    noise = torch.randn(3, 4, 3)
    observed = [random_batch(seed=seed) for seed in range(4)]
    policy.reset()
    taken = [policy.select_action(batch, noise=noise) for batch in observed]
    for now, before in ((0, (0, 0, 0)), (1, (0, 0, 1)), (3, (1, 2, 3))):
        history = {key: torch.stack([observed[step][key] for step in before], dim=1) for key in observed[0]}
        assert torch.equal(taken[now], policy.predict_action_chunk(history, noise=noise)[:, 0])
    policy.reset()
    assert torch.equal(policy.select_action(observed[0], noise=noise), taken[0])
    assert torch.isfinite(policy(random_batch(steps=(3,)))[0])
    with raises(UserError, match="set policy.n_obs_steps=1"):
        policy(random_batch())


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


@mark.parametrize(
    ("policy_type", "fields", "message"),
    [
        ("pixio_diffusion", {"horizon": 10, "down_dims": [8, 8, 8]}, "needs a multiple of 8: set policy.horizon=8"),
        ("pixio_diffusion", {"n_action_steps": 4, "n_obs_steps": 2}, "must lie between 1 and .* = 3"),
        ("pixio_diffusion", {"down_dims": [8, 12]}, "12, but needs multiples of policy.n_groups=8"),
        ("pixio_diffusion", {"crop_shape": (8, 8)}, "crop_shape has no effect"),
        ("pixio_bc", {"n_action_steps": 5}, "between 1 and policy.chunk_size=4"),
        ("pixio_bc", {"n_obs_steps": 0}, "at least 1"),
        ("pixio_bc", {"input_norm": "layr"}, "Did you mean 'layer'"),
        ("pixio_bc", {"token_noise": -0.5}, "token_noise must be 0 or more, got -0.5"),
    ],
)
def test_steps_that_cannot_be_are_refused(policy_type: str, fields: dict, message: str) -> None:
    with raises(UserError, match=message):
        make(policy_type, **fields)


def test_bc_says_why_a_single_window_cannot_train() -> None:
    policy = make("pixio_bc").train()
    with raises(UserError, match="batch size of at least 2"):
        policy(random_batch(1))


def test_bc_with_layer_norm_trains_on_a_single_window_and_ignores_the_others() -> None:
    policy = make("pixio_bc", input_norm="layer").train()
    policy(random_batch(1))[0].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in policy.head.parameters())
    three = random_batch()
    one = {key: value[:1] for key, value in three.items()}
    torch.testing.assert_close(policy._predict(three)[:1], policy._predict(one))


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
