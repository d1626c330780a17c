"""Other surfaces for the same scene: random convolutions and patterns laid over an image.

Random convolutions as in Z. Xu et al. 2021, "Robust and generalizable visual representation learning via random
convolutions", arXiv 2007.13003; overlays as in N. Hansen and X. Wang 2021, "Generalization in reinforcement learning by soft
data augmentation", arXiv 2011.13389, of patterns instead of photographs.

Shape letters: B images, C channels, H and W pixels, K pixels of a kernel's side.
"""

import torch
from torch import Tensor
from torch.nn import functional

KERNEL_SIDES = (1, 3, 5)  # pixels, ascending and odd


def draw_kernel(sides: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw a convolution of colours (1, 3, 3, K, K), which keeps the variance of noise; smaller ones lie in the middle."""
    side = sides[int(torch.randint(len(sides), (1,), generator=generator))]
    kernel_33KK = torch.randn(3, 3, side, side, generator=generator) / (3 * side * side) ** 0.5
    return functional.pad(kernel_33KK, [(sides[-1] - side) // 2] * 4)[None]


def draw_pattern(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw coloured noise of coarse to fine grids, each with soft or hard edges, in [0, 1]: (1, 3, H, W)."""
    roughness = float(torch.empty(()).uniform_(0.4, 1.4, generator=generator))
    pattern_1CHW = torch.zeros(1, 3, *size)
    octave = 1
    while 2**octave <= min(size):
        grid = torch.rand(1, 3, 2**octave, 2**octave, generator=generator) - 0.5
        mode = "bilinear" if torch.rand((), generator=generator) < 0.5 else "nearest"
        pattern_1CHW += roughness**octave * functional.interpolate(grid, size, mode=mode)
        octave += 1
    low, high = pattern_1CHW.min(), pattern_1CHW.max()
    return (pattern_1CHW - low) / (high - low).clamp(min=1e-6)


def convolve(images_BCHW: Tensor, kernels_B33KK: Tensor) -> Tensor:
    """Convolve each image with its own kernel; contrast and mean brightness stay the image's."""
    batch, channels, height, width = images_BCHW.shape
    border = kernels_B33KK.shape[-1] // 2
    padded = functional.pad(images_BCHW, [border] * 4, mode="replicate")
    convolved = functional.conv2d(padded.flatten(0, 1)[None], kernels_B33KK.flatten(0, 1), groups=batch)
    convolved_BCHW = convolved.view(batch, channels, height, width)
    convolved_BCHW = convolved_BCHW - convolved_BCHW.mean(dim=(2, 3), keepdim=True)
    mean_B111 = images_BCHW.mean(dim=(1, 2, 3), keepdim=True)
    # Not Tensor.std, which takes ten times as long on a CPU.
    spread_B111, wanted_B111 = (
        of.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() for of in (convolved_BCHW, images_BCHW - mean_B111)
    )
    return convolved_BCHW * (wanted_B111 / spread_B111.clamp(min=1e-4)) + mean_B111
