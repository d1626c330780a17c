"""ADE20K, Pascal VOC and LoveDA in their public layouts."""

import abc
from pathlib import Path

import numpy as np

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.dense.data.files import read_classes
from pixio_robot.downstream.dense.data.folders import PairedFiles, PublicFolder, by_stem, pair, require_folders
from pixio_robot.downstream.dense.data.sets import Kind

_VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_LOVEDA_CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture")


class _Labelled(PublicFolder):
    """What the three share: pixels with classes."""

    kind: Kind = "segmentation"
    _shifted = False

    def files(self) -> tuple[PairedFiles, PairedFiles]:
        """Return the files; see `PublicFolder.files`."""
        training, test = (PairedFiles(pairs, self.root, self._read) for pairs in self._pairs())
        return training, test

    @abc.abstractmethod
    def _pairs(self) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
        """Return image and label for training and test."""

    def _read(self, path: Path) -> np.ndarray:
        return read_classes(path, len(self.classes), shifted=self._shifted)


class Ade20k(_Labelled):
    """ADE20K: `images/` and `annotations/`, `training/` and `validation/` in each; 0 is unlabelled, classes begin at 1."""

    name, title = "ade20k", "ADE20K"
    classes = tuple(f"class {number}" for number in range(1, 151))
    _shifted = True

    def _pairs(self) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
        parts = ("training", "validation")
        require_folders(
            self.root, self.title, [f"{kind}/{part}" for kind in ("images", "annotations") for part in parts]
        )
        training, test = (
            pair(
                by_stem(self.root / "images" / part, ".jpg"),
                by_stem(self.root / "annotations" / part, ".png"),
                self.root,
            )
            for part in parts
        )
        return training, test


class PascalVoc(_Labelled):
    """Pascal VOC: `JPEGImages/` and `SegmentationClass/`, with the lists of `ImageSets/Segmentation/`; 255 is unlabelled.

    `trainaug.txt` counts before `train.txt`: the 10,582 images of SBD and VOC together.
    """

    name, title = "voc", "Pascal VOC"
    classes = _VOC_CLASSES

    def _pairs(self) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
        require_folders(self.root, self.title, ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))
        return self._listed("trainaug", "train"), self._listed("val")

    def _listed(self, *names: str) -> list[tuple[Path, Path]]:
        """Return the pairs of the first list that there is; images that are on no list have no labels."""
        folder = self.root / "ImageSets/Segmentation"
        lists = [folder / f"{name}.txt" for name in names if (folder / f"{name}.txt").is_file()]
        if not lists:
            raise UserError(f"{folder} has no {' or '.join(f'{name}.txt' for name in names)}, which names the images.")
        stems = lists[0].read_text(encoding="utf-8").split()
        images, labels = (
            {stem: path for stem in stems if (path := self.root / kind / f"{stem}{suffix}").is_file()}
            for kind, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png"))
        )
        return pair(images, labels, self.root)


class LoveDa(_Labelled):
    """LoveDA: `Train/Train/{Rural,Urban}/{images_png,masks_png}/` and `Val/Val/…`; 0 is unlabelled, classes begin at 1."""

    name, title = "loveda", "LoveDA"
    classes = _LOVEDA_CLASSES
    _shifted = True

    def _pairs(self) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
        training, test = (self._part(f"{part}/{part}") for part in ("Train", "Val"))
        return training, test

    def _part(self, part: str) -> list[tuple[Path, Path]]:
        areas = [f"{part}/{area}" for area in ("Rural", "Urban")]
        require_folders(
            self.root, self.title, [f"{area}/{kind}" for area in areas for kind in ("images_png", "masks_png")]
        )
        images, masks = (
            {
                f"{area}/{stem}": path
                for area in areas
                for stem, path in by_stem(self.root / area / kind, ".png").items()
            }
            for kind in ("images_png", "masks_png")
        )
        return pair(images, masks, self.root / part)
