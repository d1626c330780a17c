"""Shards that are far away, or cut off: asked for again, left out while they are few, and told from short ones."""

import tarfile
from itertools import islice
from pathlib import Path

import pytest
from tar_shards import write_shard, write_shards

from pixio_robot.common.errors import UserError
from pixio_robot.pretraining.sources import Lane
from pixio_robot.pretraining.sources import shards as shards_module
from pixio_robot.pretraining.sources.shards import ShardStream, read_shard

ONLY = Lane(seed=0, lane=0, lanes=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), 5, 7)


@pytest.mark.parametrize("url", ["pipe:exit 3", "nonsense://somewhere/a.tar", "http://127.0.0.1:9/a.tar"])
def test_urls_that_cannot_be_opened_end_the_run(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_PAUSES", (0, 0))
    with pytest.raises(UserError, match="shard"):
        next(ShardStream(url).samples(ONLY))


def test_a_remote_shard_is_asked_for_again_and_goes_on_where_it_stopped(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first try breaks off in the middle of a file, the second between two files, the third fails, the fourth is whole."""
    monkeypatch.setattr(shards_module, "_PAUSES", (0, 0, 0))
    shard = shards / "shard-000.tar"
    with tarfile.open(shard) as whole:
        between = whole.getmembers()[6].offset
    tries = tmp_path / "tries"
    script = tmp_path / "serve.sh"
    script.write_text(
        f"echo >> {tries}\n"
        f"case $(wc -l < {tries}) in 1) head -c {between - 700} {shard};; 2) head -c {between} {shard};; 3) exit 3;; "
        f"*) cat {shard};; esac\n"
    )
    assert list(read_shard(f"pipe:sh {script}")) == list(read_shard(str(shard)))
    assert caplog.text.count("it is asked for again") == 3
    assert "cut off between two files" in caplog.text


def test_few_remote_shards_that_stay_unreadable_are_left_out_and_more_end_the_run(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "_PAUSES", (0,))
    whole = [f"pipe:cat {shard}" for shard in sorted(shards.glob("*.tar"))]
    source = ShardStream([*whole, "pipe:exit 3"], unreadable=0.2)
    skipped = [name for sample in list(islice(source.samples(ONLY), 40)) for name in sample.skipped]
    assert skipped == ["pipe:exit 3/rest of pipe:exit 3"]
    with pytest.raises(UserError, match="The shard pipe:exit 3 cannot be read"):
        list(islice(ShardStream([*whole, "pipe:exit 3"], unreadable=0.1).samples(ONLY), 40))


def test_a_shard_that_is_cut_off_is_told_from_a_short_one(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {"a.jpg": b"1", "b.jpg": b"2"})
    assert [item.name for item in read_shard(str(tmp_path / "a.tar"))] == ["a.jpg", "b.jpg"]
    (tmp_path / "b.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1024])
    assert [item.name for item in read_shard(str(tmp_path / "b.tar"))] == ["a.jpg", f"rest of {tmp_path / 'b.tar'}"]
