"""Self-curation: scores against their definition, draws against the formula, tables that do not match."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from tar_shards import jpeg, write_shard, write_shards

from pixio_robot.cli.entry_points import load_job
from pixio_robot.common.errors import UserError
from pixio_robot.images.preprocessing import frames_to_images, normalise
from pixio_robot.pretraining.curation.scoring import draw_masks, image_losses, load_judge, score_shards
from pixio_robot.pretraining.images import Curation
from pixio_robot.pretraining.sources import Lane
from pixio_robot.pretraining.sources.curation import colour_entropy, scores_file
from pixio_robot.pretraining.sources.shards import ShardStream


def write_scores(shard: Path, losses: dict[str, float | None]) -> None:
    rows = [{"name": name, "loss": loss, "entropy": 5.0, "width": 400, "height": 350} for name, loss in losses.items()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), scores_file(str(shard)))


def drawn(path: Path, curation: Curation, count: int) -> Counter[str]:
    samples = ShardStream(str(path), curation=curation).samples(Lane(seed=1, lane=0, lanes=1))
    names = Counter(sample.name.rpartition("/")[2] for sample in islice(samples, count))
    samples.close()
    return names


def test_entropy_is_that_of_equally_frequent_colours() -> None:
    grey = np.full((16, 16, 3), 77, np.uint8)
    assert colour_entropy(grey) == 0
    halves = grey.copy()
    halves[:8] = 200
    assert colour_entropy(halves) == pytest.approx(1)
    levels = np.arange(8, dtype=np.uint8) * 32 + 5
    everything = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(8, 64, 3)
    assert colour_entropy(everything) == pytest.approx(9)


def test_the_chance_of_an_image_is_its_loss_and_what_is_filtered_out_never_comes() -> None:
    curation = Curation(min_entropy=4.5, min_side=320)
    assert curation.chance(0.3, 4.6, 320, 500) == 0.3
    assert curation.chance(1.7, 4.6, 320, 500) == 1
    assert curation.chance(0.3, 4.5, 320, 500) == 0
    assert curation.chance(0.3, 4.6, 500, 319) == 0
    assert curation.chance(None, None, None, None) == 0
    assert Curation().chance(0.3, 0.0, 1, 1) == 0.3


def test_images_are_shown_with_probability_of_their_loss_at_every_pass(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {f"{name}.jpg": jpeg(number) for number, name in enumerate("abcd")})
    write_scores(tmp_path / "a.tar", {"a.jpg": 0.2, "b.jpg": 0.6, "c.jpg": 1.9, "d.jpg": None})
    counts = drawn(tmp_path, Curation(), 1800)
    passes = counts["c.jpg"]
    assert passes == pytest.approx(1000, abs=60)
    for name, chance in (("a.jpg", 0.2), ("b.jpg", 0.6)):
        # Five standard deviations of a binomial count.
        assert counts[name] == pytest.approx(chance * passes, abs=5 * (passes * chance * (1 - chance)) ** 0.5)
    assert "d.jpg" not in counts


def test_scores_that_are_missing_or_do_not_match_or_leave_nothing_end_the_run(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {"a.jpg": jpeg(0), "b.jpg": jpeg(1)})
    with pytest.raises(UserError, match="run scripts/score_images.py"):
        drawn(tmp_path, Curation(), 1)
    write_scores(tmp_path / "a.tar", {"a.jpg": 1.0})
    with pytest.raises(UserError, match="no row for 'b.jpg'"):
        drawn(tmp_path, Curation(), 1)
    write_scores(tmp_path / "a.tar", {"a.jpg": 1.0, "b.jpg": 1.0})
    with pytest.raises(UserError, match="holds no images that pass curation .*at least 1000 px"):
        drawn(tmp_path, Curation(min_side=1000), 1)
    scores_file(str(tmp_path / "a.tar")).write_bytes(b"no table")
    with pytest.raises(UserError, match="cannot be read"):
        drawn(tmp_path, Curation(), 1)


def test_scores_are_losses_of_the_shipped_autoencoder_and_resume_by_shard(tmp_path: Path) -> None:
    write_shards(tmp_path, 2, 3)
    grey = Image.new("RGB", (40, 30), (90, 90, 90))
    grey.save(tmp_path / "grey.jpg")
    contents = {"grey.jpg": (tmp_path / "grey.jpg").read_bytes(), "bad.jpg": b"nonsense"}
    write_shard(tmp_path / "shard-002.tar", contents)
    judge = load_judge("pixio_tiny16")
    assert judge.image_size == 128
    assert score_shards(str(tmp_path), judge, masks=2, batch_size=2) == ["shard-002.tar/bad.jpg"]
    tables = [scores_file(str(tmp_path / f"shard-00{shard}.tar")) for shard in range(3)]
    rows = {row["name"]: row for table in tables for row in pyarrow.parquet.read_table(table).to_pylist()}
    assert rows["grey.jpg"]["entropy"] == 0
    assert (rows["grey.jpg"]["width"], rows["grey.jpg"]["height"]) == (40, 30)
    assert rows["bad.jpg"] == {"name": "bad.jpg", "loss": None, "entropy": None, "width": None, "height": None}

    # The loss of one image alone, with each mask, is what the training loss is.
    (tmp_path / "one.jpg").write_bytes(jpeg(4))
    image = Image.open(tmp_path / "one.jpg").resize((128, 128), Image.Resampling.BICUBIC, reducing_gap=3.0)
    frames = torch.from_numpy(np.array(image))[None]
    masks = draw_masks(judge.mae, 128, 2, seed=0)
    assert not torch.equal(masks[0], masks[1])
    images = normalise(frames_to_images(frames))
    with torch.no_grad():
        expected = torch.stack([judge.mae(images, mask_BN=mask[None]).loss for mask in masks]).mean()
    assert rows["00004.jpg"]["loss"] == pytest.approx(float(expected), rel=1e-4)
    assert float(image_losses(judge.mae, frames, masks)[0]) == pytest.approx(float(expected), rel=1e-5)

    before = [table.stat().st_mtime_ns for table in tables]
    tables[1].unlink()
    assert score_shards(str(tmp_path), judge, masks=2) == ["shard-002.tar/bad.jpg"]  # its table is there, and says so
    after = [table.stat().st_mtime_ns for table in tables]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    with pytest.raises(UserError, match="2 masks of seed 0, not by .* 3 masks"):
        score_shards(str(tmp_path), judge, masks=3)
    assert drawn(tmp_path, Curation(), 5).total() == 5


def test_scores_of_remote_shards_need_a_folder(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {"a.jpg": jpeg(0)})
    judge = load_judge("pixio_tiny16")
    with pytest.raises(UserError, match="need a folder"):
        score_shards(f"file:{tmp_path}/a.tar", judge)
    score_shards(f"file:{tmp_path}/a.tar", judge, masks=1, scores=str(tmp_path / "scores"))
    curated = ShardStream(f"file:{tmp_path}/a.tar", curation=Curation(scores=str(tmp_path / "scores")))
    assert next(curated.samples(Lane(0, 0, 1))).name == "a.tar/a.jpg"


def test_shards_scored_in_parts_have_the_tables_of_one_run(tmp_path: Path) -> None:
    job = load_job("score_images")

    def score(folder: Path, **parts: int) -> None:
        job.main(job.settings(path=str(folder), masks=1, **parts))

    for name in ("whole", "parts"):
        write_shards(tmp_path / name, 3, 2)
    score(tmp_path / "whole")
    score(tmp_path / "parts", part=2, parts=2)
    with pytest.raises(UserError, match=r"parts\.parts lacks 1-of-2 \(there: 2-of-2\)"):
        score(tmp_path / "parts", parts=2)
    score(tmp_path / "parts", part=1, parts=2)
    score(tmp_path / "parts", parts=2)
    tables = [sorted((tmp_path / name).glob("*.parquet")) for name in ("whole", "parts")]
    assert len(tables[0]) == 3
    for one, other in zip(*tables, strict=True):
        assert pyarrow.parquet.read_table(one).equals(pyarrow.parquet.read_table(other), check_metadata=True)
    tables[1][2].unlink()
    with pytest.raises(UserError, match=rf"{tables[1][2].name} is not there although all parts were made"):
        score(tmp_path / "parts", parts=2)
