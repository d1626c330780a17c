"""Memory needs: computed from fake tensors, compared with what a real pass allocates and with parameter counts."""

import pytest
import torch
from pretraining_speed.hardware import BYTES_PER_PARAMETER, GIB, kept_bytes, needs
from torch.profiler import ProfilerActivity, profile

from pixio_robot.pretraining.model.mae import PixioMAE
from pixio_robot.pretraining.model.masking import block_mask
from pixio_robot.pretraining.model.weights import create_encoder

DECODER = (64, 2, 4)


def test_kept_bytes_are_those_a_real_pass_holds() -> None:
    mae = PixioMAE(create_encoder("pixio_tiny16", 64), *DECODER, 0.75, 2).train()
    images, mask = torch.zeros(4, 3, 64, 64), block_mask(4, (4, 4), 0.75, 2)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        output = mae(images, mask_BN=mask)
    allocated = sum(event.self_cpu_memory_usage for event in profiler.key_averages())
    assert output.loss.requires_grad
    whole, checkpointed = kept_bytes(mae, 4, 64, bfloat16=False)
    assert whole == pytest.approx(allocated, rel=0.05)
    assert checkpointed < 0.5 * whole


def test_needs_of_the_smallest_and_of_5b() -> None:
    tiny = needs("pixio_tiny16", 64, DECODER, 0.75, 2)
    mae = PixioMAE(create_encoder("pixio_tiny16", 64), *DECODER, 0.75, 2)
    assert tiny.parameters == sum(value.numel() for value in mae.parameters())
    assert tiny.state(1) == BYTES_PER_PARAMETER * tiny.parameters
    assert tiny.whole.fixed > 0  # weights in bfloat16
    largest = needs("pixio_vit5b16", 256, (512, 32, 16), 0.75, 4)
    # 5440.9 M in the encoder (arXiv 2512.15715, table 1) and some 104 M in the decoder, 16 bytes each.
    assert largest.state(1) == pytest.approx(16 * 5.545e9, rel=0.002)
    assert largest.images(1, 80 * GIB, checkpointing=True) == 0
    assert largest.images(8, 80 * GIB, checkpointing=True) > 0
    assert largest.images(64, 80 * GIB, True) > largest.images(64, 80 * GIB, False) > 0
