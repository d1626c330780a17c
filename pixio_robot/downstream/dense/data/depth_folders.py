"""NYUv2 and KITTI depth in their public layouts, with the lists of files that papers train and test on.

The lists are those of J. H. Lee et al. 2019 (arXiv 1907.10326), which name 24,231 and 654 images of NYUv2, 23,158 and 652 of
KITTI that have depth; where a root has them, they count, and else everything does.
"""

from pathlib import Path

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.dense.data.files import read_depth
from pixio_robot.downstream.dense.data.folders import PairedFiles, PublicFolder, pair, require_folders
from pixio_robot.downstream.dense.data.sets import Kind

# Drives that D. Eigen et al. 2014 (arXiv 1406.2283) test on.
_EIGEN_TEST = {
    "2011_09_26": "2 9 13 20 23 27 29 36 46 48 52 56 59 64 84 86 93 96 101 106 117",
    "2011_09_28": "2",
    "2011_09_29": "71",
    "2011_09_30": "16 18 27",
    "2011_10_03": "27 47",
}
KITTI_TEST_DRIVES = frozenset(
    f"{date}_drive_{int(number):04d}_sync" for date, numbers in _EIGEN_TEST.items() for number in numbers.split()
)


class NyuDepth(PublicFolder):
    """NYUv2: `sync/<scene>/rgb_*.jpg` and `sync_depth_*.png`, millimetres; `official_splits/test/<room>/` likewise."""

    name, title = "nyu", "NYUv2"
    lists = ("nyudepthv2_train_files_with_gt.txt", "nyudepthv2_test_files_with_gt.txt")
    kind: Kind = "depth"
    depth_range = (0.001, 10.0)

    def files(self) -> tuple[PairedFiles, PairedFiles]:
        """Return the files; see `PublicFolder.files`."""
        require_folders(self.root, "NYUv2 depth", ("sync", "official_splits/test"))
        training, test = self.lists
        return self._part("sync", training), self._part("official_splits/test", test)

    def _part(self, name: str, file: str) -> PairedFiles:
        folder = self.root / name
        listed = _listed(self.root / file, folder, folder)
        pairs = listed or pair(_frames(folder, "rgb_*.jpg"), _frames(folder, "sync_depth_*.png"), folder)
        # The frame around what both of Kinect's cameras saw is left out, in training and test alike.
        return PairedFiles(pairs, folder, lambda path: read_depth(path, 1000), slice(45, 471), slice(41, 601))


class KittiDepth(PublicFolder):
    """KITTI: `images/<date>/<drive>/image_02/data/*.png`, `annotations/<drive>/proj_depth/groundtruth/image_02/*.png`.

    A metre is 256.
    """

    name, title = "kitti", "KITTI"
    lists = ("kitti_eigen_train_files_with_gt.txt", "kitti_eigen_test_files_with_gt.txt")
    kind: Kind = "depth"
    depth_range = (0.001, 80.0)

    def files(self) -> tuple[PairedFiles, PairedFiles]:
        """Return the files; see `PublicFolder.files`."""
        require_folders(self.root, "KITTI depth", ("images", "annotations"))
        training, test = self.lists
        return self._part(training, tested=False), self._part(test, tested=True)

    def _part(self, file: str, *, tested: bool) -> PairedFiles:
        images, depths = self.root / "images", self.root / "annotations"
        pairs = _listed(self.root / file, images, depths) or self._everything(tested=tested)
        return PairedFiles(pairs, images, lambda path: read_depth(path, 256))

    def _everything(self, *, tested: bool) -> list[tuple[Path, Path]]:
        """Return all frames with depth of the drives that are tested on or not; a drive's first and last frames have none."""
        depths, images = {}, {}
        for depth in sorted((self.root / "annotations").glob("*/proj_depth/groundtruth/image_02/*.png")):
            drive = depth.parents[3].name
            if (drive in KITTI_TEST_DRIVES) == tested:
                image = self.root / "images" / drive[:10] / drive / "image_02/data" / depth.name
                depths[f"{drive}/{depth.name}"] = depth
                if image.is_file():
                    images[f"{drive}/{depth.name}"] = image
        if not depths:
            raise UserError(
                f"{self.root / 'annotations'} has no depth of a drive to {'test' if tested else 'train'} on: looked for "
                f"<drive>/proj_depth/groundtruth/image_02/*.png; Eigen's split tests on {len(KITTI_TEST_DRIVES)} drives such as "
                f"2011_09_26_drive_0002_sync and trains on others."
            )
        return pair(images, depths, self.root)


def _frames(folder: Path, pattern: str) -> dict[str, Path]:
    """Return frames by scene and number."""
    return {f"{path.parent.name}/{path.stem.rpartition('_')[2]}": path for path in sorted(folder.glob(f"*/{pattern}"))}


def _listed(file: Path, images: Path, depths: Path) -> list[tuple[Path, Path]]:
    """Return the pairs of a list whose lines give an image and its depth, or `None` where it has none; nothing without list.

    Raises:
        UserError: A file of the list is missing, or a line is no such line.
    """
    if not file.is_file():
        return []
    pairs = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2:
            raise UserError(f"Line {number} of {file} must name an image and its depth, got {line!r}.")
        if words[1] == "None":
            continue
        pairs.append((images / words[0].lstrip("/"), depths / words[1].lstrip("/")))
        missing = [path for path in pairs[-1] if not path.is_file()]
        if missing:
            raise UserError(f"{missing[0]} is missing, which line {number} of {file} names.")
    if not pairs:
        raise UserError(f"{file} names no image that has depth.")
    return pairs
