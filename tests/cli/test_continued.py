"""A continued run has the settings that it was begun with, and those that the command line gives now."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pixio_robot.cli.entry_points import load_job
from pixio_robot.common.errors import UserError

SAVED = {
    "pretraining": {
        "variant": "pixio_small16",
        "epochs": None,
        "steps": 7,
        "lr": 0.002,
        "batch_size": 6,
        "accumulation": 1,
    },
    "images": {"kind": "lerobot", "path": "recorded", "every": 3},
    "cache_dir": "elsewhere",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "pretrain_encoder" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(SAVED))
    return folder


def read(*arguments: str) -> Any:
    return load_job("pretrain_encoder").read(arguments)


def test_what_is_not_given_again_is_the_runs(run: Path, tmp_path: Path) -> None:
    root = f"output_root={tmp_path}"
    for named in ([f"resume={run}"], [root, "resume=last"], [root, "run=mine", "resume=auto"]):
        settings = read(*named, "pretraining.steps=9")
        assert settings.pretraining.steps == 9
        assert (settings.pretraining.variant, settings.pretraining.lr) == ("pixio_small16", 0.002)
        assert (settings.images.kind, str(settings.images.path), settings.images.every) == ("lerobot", "recorded", 3)
        assert str(settings.cache_dir) == "elsewhere"


def test_a_run_that_auto_begins_needs_everything(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images.path must be given"):
        read(f"output_root={tmp_path}", "run=other", "resume=auto")


def test_settings_of_a_run_that_cannot_be_read(run: Path) -> None:
    for content, message in (("steps: [1", "is damaged"), ("- 1", "holds no settings")):
        (run / "config.yaml").write_text(content)
        with pytest.raises(UserError, match=message):
            read(f"resume={run}")
