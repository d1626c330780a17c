"""What the encoder of a run so far knows of labelled images: classes by a linear probe, and by the vote of neighbours.

Shape letters: N images to learn from, M images to test, D width, C classes.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pixio_robot.encoders import PixioVisionTransformer
from pixio_robot.encoders.probing.labelled import ImageFolder, LabelledFiles, file_batches
from pixio_robot.encoders.probing.neighbours import class_token_features, vote
from pixio_robot.encoders.probing.ridge import best_map, ridge_path
from pixio_robot.images.preprocessing import normalise

NEIGHBOURS, TEMPERATURE = 20, 0.07  # Z. Wu et al. 2018, arXiv 1805.01978, section 3.4, has 200 of 1.28 M images
LINEAR, KNN = "linear_probe", "knn"
"""Names of the accuracies in the log."""
_VALIDATION = 5  # every fifth image that is learnt from chooses the penalty


class EncoderProbes:
    """Asks an encoder about labelled images, now and then."""

    def __init__(self, images: Path, every: int, image_size: int) -> None:
        """List the images.

        Args:
            images: `train/<class>/…` and `test/<class>/…`.
            every: Steps from one measurement to the next.
            image_size: Side in pixels of the central squares that the encoder sees.

        Raises:
            UserError: See `ImageFolder.open`.
        """
        self._images, self._every, self._side = ImageFolder.open(images, "probe_images"), every, image_size

    def is_due(self, step: int, total: int) -> bool:
        """Whether an encoder is to be measured after so many steps of all."""
        return step % self._every == 0 or step == total

    @torch.no_grad()
    def measure(self, encoder: PixioVisionTransformer) -> dict[str, float]:
        """Return by name the shares of the test images whose class is told right.

        The encoder's mode is as it was afterwards, and nothing random is drawn.

        Raises:
            UserError: A file cannot be decoded.
        """
        training = encoder.training
        encoder.eval()
        with torch.compiler.set_stance("force_eager"):
            known_ND, tested_MD = (self._features(encoder, part) for part in (self._images.training, self._images.test))
        encoder.train(training)
        labels_N, labels_M = torch.tensor(self._images.training.labels), torch.tensor(self._images.test.labels)
        classes = len(self._images.classes)
        told = vote(known_ND, labels_N, tested_MD, [NEIGHBOURS], classes, TEMPERATURE)[NEIGHBOURS]
        return {
            LINEAR: linear_accuracy(known_ND, labels_N, tested_MD, labels_M, classes),
            KNN: float((told == labels_M).float().mean()),
        }

    def _features(self, encoder: PixioVisionTransformer, part: LabelledFiles) -> Tensor:
        device = next(encoder.parameters()).device
        return torch.cat(
            [
                class_token_features(encoder, normalise(images_BCHW.to(device)), encoder.num_prefix_tokens).cpu()
                for images_BCHW in file_batches(part.files, self._side, self._side)
            ]
        )


def linear_accuracy(known_ND: Tensor, labels_N: Tensor, tested_MD: Tensor, labels_M: Tensor, classes: int) -> float:
    """Return the share of images whose class a linear map tells right, fitted by least squares on classes as 0 and 1.

    The penalty is the best on every fifth of the images that are learnt from; the map is fitted on the others.

    Args:
        known_ND: Features of the images that are learnt from.
        labels_N: Their classes.
        tested_MD: Features of those that are asked about.
        labels_M: Their classes.
        classes: Number of classes.
    """
    held_out_N = torch.arange(len(known_ND)) % _VALIDATION == _VALIDATION - 1
    maps = ridge_path(known_ND[~held_out_N], one_hot(labels_N[~held_out_N], classes).float())
    held_out_D, held_out = known_ND[held_out_N], labels_N[held_out_N]
    chosen = best_map(maps, lambda fit: -float((fit(held_out_D).argmax(dim=1) == held_out).float().sum()))
    return float((chosen(tested_MD).argmax(dim=1) == labels_M).float().mean())
