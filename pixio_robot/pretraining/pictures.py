"""Pictures of a pretraining run: reconstructions and the loss curve."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pixio_robot.images.patches import patch_statistics, patchify, take_patches, unpatchify
from pixio_robot.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, frames_to_images, normalise
from pixio_robot.pretraining.model.mae import PixioMAE
from pixio_robot.reports.charts import save_figure

GAP = 4  # white pixels between pictures
HIDDEN_GREY = 0.5  # masked patches in the middle row


@torch.no_grad()
def reconstruct(mae: PixioMAE, images_BHWC: Tensor, seed: int) -> np.ndarray:
    """Show what the autoencoder makes of images: one column each of original, masked and reconstruction.

    Predictions are scaled back with mean and deviation of the patch they should be, since the decoder predicts
    normalised pixels; visible patches are shown as they are.

    Args:
        mae: The autoencoder, in the mode it should be shown in (normally `eval()`).
        images_BHWC: uint8 frames, sides divisible by patch and mask block.
        seed: Seed of the masks.

    Returns:
        One uint8 RGB picture (3·H + gaps, B·W + gaps, 3).

    Raises:
        UserError: The image size fits neither patch nor mask block.
    """
    device = mae.decoder.mask_token.device
    images_BCHW = frames_to_images(images_BHWC).to(device)
    normalised = normalise(images_BCHW)
    output = mae(normalised, torch.Generator().manual_seed(seed))
    masked_BM = output.masked_BM
    patches_BNX = patchify(normalised, mae.patch)
    mean, deviation = patch_statistics(take_patches(patches_BNX, masked_BM))
    index_BMX = masked_BM[..., None].expand_as(output.prediction_BMX)
    filled_BNX = patches_BNX.scatter(1, index_BMX, output.prediction_BMX.float() * deviation + mean)
    grid = mae.patch_grid(images_BCHW)
    mean_C11, std_C11 = (torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    reconstruction = unpatchify(filled_BNX, grid, mae.patch) * std_C11 + mean_C11
    hidden = unpatchify(patchify(images_BCHW, mae.patch).scatter(1, index_BMX, HIDDEN_GREY), grid, mae.patch)
    return tile([images_BCHW, hidden, reconstruction])


def tile(rows_BCHW: list[Tensor]) -> np.ndarray:
    """Lay rows of images in [0, 1] out as one uint8 RGB picture with white gaps."""
    batch, _, height, width = rows_BCHW[0].shape
    picture = np.full((len(rows_BCHW) * (height + GAP) - GAP, batch * (width + GAP) - GAP, 3), 255, dtype=np.uint8)
    for row, images in enumerate(rows_BCHW):
        pixels = (images.clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
        for column in range(batch):
            top, left = row * (height + GAP), column * (width + GAP)
            picture[top : top + height, left : left + width] = pixels[column]
    return picture


def save_loss_curve(losses: list[float], file: Path, loss_name: str) -> None:
    """Draw the loss of every step, with a running mean over a fiftieth of the run, as PNG."""
    steps = range(1, len(losses) + 1)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, linewidth=0.5, alpha=0.4, label="each step")
    window = max(1, len(losses) // 50)
    mean = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(steps[window - 1 :], mean, linewidth=1.5, label=f"mean of {window} steps")
    axes.set_xlabel("step")
    axes.set_ylabel(loss_name)
    # The first steps lie far above the rest and would flatten the curve.
    axes.set_ylim(min(losses) * 0.95, float(np.quantile(losses, 0.98)) * 1.05)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, file)
