"""pixio_diffusion and pixio_bc."""

import torch
from lerobot_policy_pixio.modeling_pixio_bc import fuse_history
from pytest import mark, raises
from tiny_policies import SIZES, make, random_batch, seeded

from pixio_robot.common.errors import UserError


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
    encoded: list[int] = []
    hook = policy.encoder.register_forward_hook(lambda _, images, __: encoded.append(len(images[0])))
    taken = [policy.select_action(batch, noise=noise) for batch in observed]
    hook.remove()
    assert sum(encoded) == len(observed) * len(SIZES) * len(observed[0][next(iter(SIZES))])  # each frame once
    for now, before in ((0, (0, 0, 0)), (1, (0, 0, 1)), (3, (1, 2, 3))):
        history = {key: torch.stack([observed[step][key] for step in before], dim=1) for key in observed[0]}
        torch.testing.assert_close(taken[now], policy.predict_action_chunk(history, noise=noise)[:, 0])
    policy.reset()
    assert torch.equal(policy.select_action(observed[0], noise=noise), taken[0])
    assert torch.isfinite(policy(random_batch(steps=(3,)))[0])
    with raises(UserError, match="set policy.n_obs_steps=1"):
        policy(random_batch())


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
