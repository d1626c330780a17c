"""What a step costs is counted from the model and measured on the device."""

import pytest
import torch
from tiny_run import TINY

from pixio_robot.pretraining.model.cost import flops_per_image, product_rate


def test_flops_are_those_of_the_papers_architecture() -> None:
    # By hand: visible tokens 8 + 2, all tokens 8 + 4; 24·D² a token and block for the products with weights (qkv 6,
    # projection 2, MLP 16), 4·D·L for attention.
    encoder = 6 * 10 * (24 * 192**2 + 4 * 192 * 10)
    decoder = 12 * (24 * 32**2 + 4 * 32 * 12)
    others = 2 * (2 * 768 * 192 + 10 * 192 * 32 + 2 * 32 * 768)
    forward = encoder + decoder + others
    # Backward takes twice the forward pass, except that pixels need no gradient.
    assert flops_per_image(TINY) == pytest.approx(3 * forward - 2 * 2 * 768 * 192, rel=1e-6)


def test_a_rate_is_that_of_a_product() -> None:
    assert 1e7 < product_rate(torch.device("cpu"), torch.float32, (64, 64, 64), seconds=0.01) < 1e14
