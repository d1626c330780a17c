"""Class by the vote of the nearest images, as k-NN evaluations of frozen encoders do it.

Source: Z. Wu et al. 2018, arXiv 1805.01978, section 3.4; the class tokens before the norm as in arXiv 2512.15715's k-NN.
Shape letters: B batch, N images to learn from, M images to test, D width, C classes, K neighbours.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixio_robot.encoders import VisionEncoder
from pixio_robot.encoders.intermediate import intermediate_tokens

_ROWS = 512  # test images compared at once


def image_features(encoder: VisionEncoder, images_BCHW: Tensor) -> Tensor:
    """Return one vector of length 1 for each image (B, D).

    It is the mean of the last block's class tokens before the final norm; where an encoder has none, or keeps its inside to
    itself, the mean of its global tokens.

    Args:
        encoder: Frozen.
        images_BCHW: In [0, 1].
    """
    backbone = encoder.backbone
    with torch.no_grad():
        if getattr(backbone, "num_prefix_tokens", 0) and hasattr(backbone, "forward_intermediates"):
            encoder.grid(int(images_BCHW.shape[-2]), int(images_BCHW.shape[-1]))
            return class_token_features(backbone, encoder.preprocess(images_BCHW), encoder.num_global)
        return _unit_mean(encoder(images_BCHW).global_tokens)


@torch.no_grad()
def class_token_features(backbone: nn.Module, images_BCHW: Tensor, class_tokens: int) -> Tensor:
    """Return the mean of the last block's class tokens before the final norm, at length 1 (B, D).

    Args:
        backbone: A vision transformer of timm's, in evaluation mode.
        images_BCHW: Normalised.
        class_tokens: How many of its prefix tokens are class tokens.
    """
    feature_info: Any = backbone.feature_info
    ((prefix_BPD, _),) = intermediate_tokens(backbone, images_BCHW, [len(feature_info) - 1], norm=False)
    assert prefix_BPD is not None
    return _unit_mean(prefix_BPD[:, :class_tokens])


def _unit_mean(tokens_BGD: Tensor) -> Tensor:
    return torch.nn.functional.normalize(tokens_BGD.mean(dim=1), dim=1)


def vote(
    features_ND: Tensor,
    labels_N: Tensor,
    tested_MD: Tensor,
    neighbours: Sequence[int],
    classes: int,
    temperature: float,
) -> dict[int, Tensor]:
    """Tell the classes of images from their nearest neighbours.

    Args:
        features_ND: Vectors of length 1 of the images whose classes are known.
        labels_N: Their classes.
        tested_MD: Vectors of length 1 of the images to tell.
        neighbours: Numbers k of neighbours that vote; at most N do.
        classes: Number C of classes.
        temperature: A neighbour's vote weighs exp(similarity / temperature).

    Returns:
        By k, the classes (M,).
    """
    told: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    most = min(max(neighbours), len(features_ND))
    for rows_BD in tested_MD.split(_ROWS):
        similarity_BK, index_BK = (rows_BD @ features_ND.T).topk(most, dim=1)
        # The largest similarity is 1: without it exp() of 1 / 0.07 is large, and the order is the same.
        weight_BK = ((similarity_BK - 1) / temperature).exp()
        for k in neighbours:
            votes_BC = weight_BK.new_zeros(len(rows_BD), classes)
            votes_BC.scatter_add_(1, labels_N[index_BK[:, :k]], weight_BK[:, :k])
            told[k].append(votes_BC.argmax(dim=1))
    return {k: torch.cat(parts) for k, parts in told.items()}
