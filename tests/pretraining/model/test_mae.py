"""The autoencoder against straightforward recomputations of the paper's definitions."""

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional

from pixio_robot.common.errors import UserError
from pixio_robot.encoders import PixioVisionTransformer
from pixio_robot.images.patches import patchify, unpatchify
from pixio_robot.pretraining.model.mae import PixioMAE
from pixio_robot.pretraining.model.masking import block_mask, split_patches


def make_mae(image_size: int = 64, ratio: float = 0.75) -> PixioMAE:
    torch.manual_seed(0)
    encoder = timm.create_model("pixio_tiny16", img_size=image_size)
    assert isinstance(encoder, PixioVisionTransformer)
    return PixioMAE(encoder, 32, 2, 2, ratio, 2).eval()


@pytest.fixture(scope="module")
def mae() -> PixioMAE:
    return make_mae()


def test_patchify_cuts_rows_of_patches_and_is_inverted() -> None:
    images = torch.randn(2, 3, 32, 48)
    patches = patchify(images, 16)
    assert torch.equal(patches[1, 4].view(3, 16, 16), images[1, :, 16:32, 16:32])
    assert torch.equal(unpatchify(patches, (2, 3), 16), images)


@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_without_masking_the_encoder_is_timms(mae: PixioMAE, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    grid = mae.patch_grid(images)
    everything = torch.arange(grid[0] * grid[1]).expand(2, -1)
    with torch.no_grad():
        tokens = mae.encode(patchify(images, 16), everything, grid)
        torch.testing.assert_close(tokens, mae.encoder.forward_features(images), rtol=1e-4, atol=1e-5)


def test_visible_patches_keep_their_positions(mae: PixioMAE) -> None:
    images = torch.randn(1, 3, 64, 64)
    visible = torch.tensor([[1, 2, 7, 12]])
    encoder = mae.encoder
    with torch.no_grad():
        embedded = encoder._pos_embed(encoder.patch_embed(images))
        chosen = torch.cat([embedded[:, :8], embedded[:, 8:][:, visible[0]]], dim=1)
        expected = encoder.norm(encoder.blocks(chosen))
        torch.testing.assert_close(mae.encode(patchify(images, 16), visible, (4, 4)), expected, rtol=1e-4, atol=1e-5)


def test_loss_is_the_papers_formula(mae: PixioMAE) -> None:
    images = torch.randn(3, 3, 64, 64) * torch.tensor([2.0, 0.5, 1.0])[:, None, None, None] + 0.3
    with torch.no_grad():
        output = mae(images, torch.Generator().manual_seed(1))
    pixels, errors = images.double().numpy(), []
    for image in range(3):
        hidden = output.masked_BM[image].tolist()
        assert len(hidden) == output.prediction_BMX.shape[1] == 12
        for place, patch in enumerate(hidden):
            top, left = 16 * (patch // 4), 16 * (patch % 4)
            values = pixels[image, :, top : top + 16, left : left + 16]
            target = (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-6)
            prediction = output.prediction_BMX[image, place].double().numpy().reshape(3, 16, 16)
            errors.append((prediction - target) ** 2)
    # The biased variance would change the loss by some 1e-3 of itself.
    np.testing.assert_allclose(output.loss.item(), np.mean(errors), rtol=1e-5)


def test_flat_patches_have_a_finite_loss_and_gradient(mae: PixioMAE) -> None:
    loss = mae(torch.full((2, 3, 64, 64), 0.7)).loss
    loss.backward()
    gradients = [p.grad for p in mae.parameters() if p.grad is not None]
    mae.zero_grad()
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_masked_pixels_reach_neither_encoder_nor_prediction(mae: PixioMAE) -> None:
    images = torch.randn(2, 3, 64, 64)
    mask = block_mask(2, (4, 4), 0.75, 2, torch.Generator().manual_seed(0))
    noise = unpatchify(torch.randn(2, 16, 768) * mask[..., None], (4, 4), 16)
    with torch.no_grad():
        first, second = mae(images, mask_BN=mask), mae(images + noise, mask_BN=mask)
        assert torch.equal(first.prediction_BMX, second.prediction_BMX)
        assert first.loss != second.loss
        seen = unpatchify(torch.randn(2, 16, 768) * ~mask[..., None], (4, 4), 16)
        assert not torch.equal(first.prediction_BMX, mae(images + seen, mask_BN=mask).prediction_BMX)


def test_decoder_equals_the_textbook_form_with_mask_tokens_in_place(mae: PixioMAE) -> None:
    mask = block_mask(2, (4, 4), 0.75, 2, torch.Generator().manual_seed(5))
    visible, masked = split_patches(mask)
    tokens = torch.randn(2, 8 + visible.shape[1], 192)
    decoder = mae.decoder
    with torch.no_grad():
        embedded = decoder.embed(tokens)
        sequence = decoder.mask_token.repeat(2, 16, 1)
        for image in range(2):
            sequence[image, visible[image]] = embedded[image, 8:]
        sequence = torch.cat([embedded[:, :8], sequence], dim=1) + decoder.pos_embed
        full = decoder.head(decoder.norm(decoder.blocks(sequence)))[:, 8:]
        expected = torch.stack([full[image, masked[image]] for image in range(2)])
        torch.testing.assert_close(decoder(tokens, visible, masked, (4, 4)), expected, rtol=1e-4, atol=1e-5)


def test_any_size_divisible_by_patch_and_block(mae: PixioMAE) -> None:
    output = mae(torch.randn(1, 3, 96, 160), torch.Generator().manual_seed(0))
    assert output.masked_BM.shape == (1, round(0.75 * 15) * 4)
    assert output.prediction_BMX.shape == (1, round(0.75 * 15) * 4, 768)


@pytest.mark.parametrize("size", [(60, 64), (48, 64)])
def test_sizes_that_fit_neither_patch_nor_block_are_refused(mae: PixioMAE, size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="choose"):
        mae(torch.randn(1, 3, *size))


def test_initial_decoder_follows_the_paper(mae: PixioMAE) -> None:
    decoder = make_mae(128).decoder
    weight = decoder.blocks[0].mlp.fc1.weight  # 32 → 128
    assert weight.abs().max() <= (6 / (32 + 128)) ** 0.5
    assert weight.std().item() == pytest.approx((2 / (32 + 128)) ** 0.5, rel=0.05)
    assert decoder.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert all((p == 0).all() for name, p in decoder.named_parameters() if name.endswith("bias"))


def test_a_few_images_can_be_learnt_by_heart() -> None:
    mae = make_mae().train()
    torch.manual_seed(1)
    images = functional.interpolate(torch.randn(4, 3, 8, 8), size=(64, 64), mode="bicubic")
    mask = block_mask(4, (4, 4), 0.75, 2, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(mae.parameters(), 2e-3)
    losses = []
    for _ in range(150):
        loss = mae(images, mask_BN=mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.9
    assert losses[-1] < 0.15
