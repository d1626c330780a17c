"""Public data sets are read from the folders that they come in, each with its trap; what is wrong is said in a sentence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pixio_robot.common.errors import UserError
from pixio_robot.downstream.dense.data.class_folders import Ade20k, LoveDa, PascalVoc
from pixio_robot.downstream.dense.data.depth_folders import KITTI_TEST_DRIVES, KittiDepth, NyuDepth
from pixio_robot.downstream.dense.data.folders import PublicFolder

QUIET = Console(quiet=True)
TRAINING_DRIVE, TEST_DRIVE = "2011_09_26_drive_0001_sync", "2011_09_26_drive_0002_sync"


def save(array: np.ndarray, path: Path, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if mode == "P":
        image = image.convert("P")
        image.putdata(array.ravel().tolist())
        image.putpalette([(7 * number) % 256 for number in range(768)])
    image.save(path)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def nyu(root: Path) -> NyuDepth:
    rows, columns = np.mgrid[:480, :640]
    for folder in ("sync/kitchen_0028b", "official_splits/test/bathroom"):
        for number in (1, 2):
            save(photo(480, 640, number), root / folder / f"rgb_{number:05d}.jpg")
            save((1000 * number + rows + columns).astype(np.uint16), root / folder / f"sync_depth_{number:05d}.png")
    return NyuDepth(root)


def kitti(root: Path) -> KittiDepth:
    for drive in (TRAINING_DRIVE, TEST_DRIVE):
        for number in range(4):
            image = root / "images" / drive[:10] / drive / "image_02/data" / f"{number:010d}.png"
            save(photo(30, 100, number), image)
            if number in (1, 2):  # the first and last frames of a drive have no depth
                depth = np.zeros((30, 100), np.uint16)
                depth[10:] = 256 * number + 128
                save(depth, root / "annotations" / drive / "proj_depth/groundtruth/image_02" / image.name)
    return KittiDepth(root)


def ade(root: Path) -> Ade20k:
    for part in ("training", "validation"):
        save(photo(20, 24), root / "images" / part / "ADE_1.jpg")
        labels = np.zeros((20, 24), np.uint8)
        labels[5:], labels[10:] = 1, 150
        save(labels, root / "annotations" / part / "ADE_1.png")
    return Ade20k(root)


def voc(root: Path) -> PascalVoc:
    for name in ("2007_1", "2007_2", "2007_3", "unlabelled"):
        save(photo(20, 24), root / "JPEGImages" / f"{name}.jpg")
    labels = np.zeros((20, 24), np.uint8)
    labels[5:], labels[10:] = 20, 255
    for name in ("2007_1", "2007_2", "2007_3"):
        save(labels, root / "SegmentationClass" / f"{name}.png", mode="P")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_1\n")
    (lists / "trainaug.txt").write_text("2007_1\n2007_2\n")
    (lists / "val.txt").write_text("2007_3\n")
    return PascalVoc(root)


def loveda(root: Path) -> LoveDa:
    for part in ("Train/Train", "Val/Val"):
        for area in ("Rural", "Urban"):
            save(photo(20, 24), root / part / area / "images_png/3.png")  # both areas have a number 3
            labels = np.zeros((20, 24), np.uint8)
            labels[5:], labels[10:] = 1, 7 if area == "Urban" else 2
            save(labels, root / part / area / "masks_png/3.png")
    return LoveDa(root)


LAYOUTS: dict[str, Callable[[Path], PublicFolder]] = {f.__name__: f for f in (nyu, kitti, ade, voc, loveda)}


def test_nyu_is_cropped_in_training_and_test_and_millimetres(tmp_path: Path) -> None:
    data = nyu(tmp_path).open(QUIET)
    for part in (data.training, data.tests["test"]):
        assert len(part) == 2
        assert part.image(0).shape == (426, 560, 3) and part.truth(0).shape == (426, 560)
        assert part.truth(1)[0, 0] == pytest.approx((2000 + 45 + 41) / 1000)
        assert part.truth(1)[-1, -1] == pytest.approx((2000 + 470 + 600) / 1000)


def test_nyu_counts_what_its_list_names(tmp_path: Path) -> None:
    source = nyu(tmp_path)
    listed = "/kitchen_0028b/rgb_00002.jpg /kitchen_0028b/sync_depth_00002.png 518.8579\n"
    (tmp_path / "nyudepthv2_train_files_with_gt.txt").write_text(listed)
    data = source.open(QUIET)
    assert data.training.names == ["kitchen_0028b/rgb_00002.jpg"] and len(data.tests["test"]) == 2
    (tmp_path / "nyudepthv2_train_files_with_gt.txt").write_text(listed.replace("rgb_00002", "rgb_00009"))
    with pytest.raises(UserError, match=r"rgb_00009.jpg is missing, which line 1 of .*nyudepthv2_train_files"):
        source.open(QUIET)


def test_kitti_is_256_to_a_metre_and_zero_is_nothing(tmp_path: Path) -> None:
    data = kitti(tmp_path).open(QUIET)
    assert len(KITTI_TEST_DRIVES) == 28 and TEST_DRIVE in KITTI_TEST_DRIVES
    assert [TRAINING_DRIVE in name for name in data.training.names] == [True, True]
    assert [TEST_DRIVE in name for name in data.tests["test"].names] == [True, True]
    truth = data.tests["test"].truth(1)
    assert truth.dtype == np.float32 and (truth[:10] == 0).all() and (truth[10:] == 2.5).all()


def test_a_root_without_the_lists_says_what_counts_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = kitti(tmp_path)
    source.open(Console())
    said = (
        "KITTI: 2 training and 2 test images; everything that is there, since the root has no kitti_eigen_train_files"
    )
    assert said in capsys.readouterr().out


def test_kitti_leaves_out_what_its_list_has_no_depth_of(tmp_path: Path) -> None:
    source = kitti(tmp_path)
    lines = [
        f"{TEST_DRIVE[:10]}/{TEST_DRIVE}/image_02/data/{number:010d}.png {depth} 721.5377\n"
        for number, depth in ((0, "None"), (1, f"{TEST_DRIVE}/proj_depth/groundtruth/image_02/0000000001.png"))
    ]
    (tmp_path / "kitti_eigen_test_files_with_gt.txt").write_text("".join(lines))
    assert len(source.open(QUIET).tests["test"]) == 1


@pytest.mark.parametrize(("layout", "last"), [(ade, 149), (loveda, 1)])
def test_class_zero_is_unlabelled_and_others_begin_at_one(
    layout: Callable[[Path], PublicFolder], last: int, tmp_path: Path
) -> None:
    data = layout(tmp_path).open(QUIET)
    for part in (data.training, data.tests["test"]):
        truth = part.truth(0)
        assert (truth[:5] == 255).all() and (truth[5:10] == 0).all() and (truth[10:] == last).all()


def test_loveda_has_rural_and_urban_images_of_one_name(tmp_path: Path) -> None:
    data = loveda(tmp_path).open(QUIET)
    assert len(data.training) == len(data.tests["test"]) == 2
    assert {int(data.training.truth(row)[-1, -1]) for row in range(2)} == {1, 6}


def test_voc_reads_the_indices_of_a_palette_of_the_images_on_its_lists(tmp_path: Path) -> None:
    data = voc(tmp_path).open(QUIET)
    assert len(data.training) == 2 and len(data.tests["test"]) == 1
    truth = data.training.truth(0)
    assert (truth[:5] == 0).all() and (truth[5:10] == 20).all() and (truth[10:] == 255).all()
    (tmp_path / "ImageSets/Segmentation/trainaug.txt").unlink()
    assert len(PascalVoc(tmp_path).open(QUIET).training) == 1


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_another_folder_is_not_taken_for_it(layout: Callable[[Path], PublicFolder], tmp_path: Path) -> None:
    source = layout(tmp_path / "good")
    other = tmp_path / "other"
    (other / "something").mkdir(parents=True)
    with pytest.raises(UserError, match=r"other is not laid out as .* is: looked for .*/, found something/\."):
        type(source)(other).check(16)
    with pytest.raises(UserError, match=r"There is no folder .*nowhere: give the folder of"):
        type(source)(tmp_path / "nowhere").check(16)
    source.check(16)


@pytest.mark.parametrize(("layout", "kind"), [(nyu, "sync_depth_00002.png"), (ade, "ADE_1.png"), (loveda, "3.png")])
def test_images_and_labels_that_do_not_pair_are_counted(
    layout: Callable[[Path], PublicFolder], kind: str, tmp_path: Path
) -> None:
    source = layout(tmp_path)
    labels = [path for path in sorted(tmp_path.rglob(kind)) if "images" not in str(path.relative_to(tmp_path))]
    labels[-1].unlink()
    with pytest.raises(UserError, match=r"do not pair: \d images and \d labels; the first without a partner is \S+\."):
        source.check(16)


def test_a_drive_whose_images_are_missing_does_not_pair(tmp_path: Path) -> None:
    source = kitti(tmp_path)
    (tmp_path / f"images/2011_09_26/{TEST_DRIVE}/image_02/data/0000000002.png").unlink()
    with pytest.raises(UserError, match=rf"1 images and 2 labels; the first .* is {TEST_DRIVE}/0000000002.png"):
        source.check(16)


def test_depth_of_another_bit_depth_is_refused(tmp_path: Path) -> None:
    source = kitti(tmp_path)
    path = sorted((tmp_path / "annotations" / TRAINING_DRIVE).rglob("*.png"))[0]
    save(np.zeros((30, 100), np.uint8), path)
    with pytest.raises(
        UserError, match=r"000\d.png is an image of mode L; expected one channel of 16 bits with 256 to a metre"
    ):
        source.check(16)


def test_a_label_beyond_the_classes_is_refused(tmp_path: Path) -> None:
    source = loveda(tmp_path)
    path = sorted(tmp_path.rglob("masks_png/3.png"))[0]
    save(np.full((20, 24), 8, np.uint8), path)
    with pytest.raises(UserError, match=r"3.png has the label 8; there are 7 classes, and the highest label is 7\."):
        source.check(16)
    save(photo(20, 24), path)
    with pytest.raises(UserError, match="is an image of mode RGB; expected class numbers in one channel of 8 bits"):
        source.check(16)


def test_a_label_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    source = ade(tmp_path)
    save(np.zeros((20, 20), np.uint8), tmp_path / "annotations/validation/ADE_1.png")
    with pytest.raises(UserError, match=r"ADE_1.png has 20×20 px, and its image .*ADE_1.jpg 20×24"):
        source.check(16)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    source = kitti(tmp_path)
    path = sorted((tmp_path / "annotations" / TRAINING_DRIVE).rglob("*.png"))[0]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"000\d.png cannot be read as an image"):
        source.check(16)


def test_crops_larger_than_an_image_are_refused_where_nothing_is_padded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Crops of 64 px are larger than 2011_09_26/.*png, which has 30×100"):
        kitti(tmp_path / "kitti").check(64)
    ade(tmp_path / "ade").check(64)
