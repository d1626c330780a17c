"""scripts/pretrain_encoder.py: its configuration composes, it runs, and answers mistakes in one sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from forked_scripts import run_script
from jobs import composed
from safetensors.torch import load_file

from pixio_robot.cli.entry_points import load_job
from pixio_robot.common.errors import UserError
from pixio_robot.pretraining.sources import open_source

SCRIPT = "pretrain_encoder.py"


@pytest.mark.parametrize("images", ["demos", "folder", "lerobot", "live", "mixture", "shards"])
def test_every_image_source_composes_into_settings(images: str, tmp_path: Path) -> None:
    missing = {"live": [], "mixture": ["images.sources=[{kind: live, generator: nonsense, weight: 1}]"]}
    overrides = missing.get(images, [f"images.path={tmp_path}/nothing"])
    fields = composed("pretrain_encoder", f"images={images}", *overrides)
    settings: Any = load_job("pretrain_encoder").settings(**fields)
    config = settings.pretraining
    assert config.variant == "pixio_tiny16"
    assert config.photometric
    assert config.photometric.brightness == (0.2, 1.6)
    assert settings.images.kind == images
    if images == "live":
        assert open_source(settings.images, tmp_path).fingerprint
    else:  # all settings are known, and only what they point to is missing
        with pytest.raises(UserError, match="nothing|nonsense"):
            open_source(settings.images, tmp_path)


def test_the_script_pretrains_on_a_folder_and_goes_on(image_folder: Path, tmp_path: Path) -> None:
    command = (
        f"images.path={image_folder}",
        "images.side=40",
        "pretraining.image_size=32",
        "pretraining.mask_block=1",
        "pretraining.batch_size=4",
        "pretraining.accumulation=1",
        "pretraining.epochs=1",
    )
    done = run_script(SCRIPT, *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "pretrain_encoder").iterdir()
    assert (folder / "encoder.safetensors").exists()
    assert str(folder.relative_to(tmp_path)) in done.stdout
    whole = load_file(folder / "encoder.safetensors")
    (folder / "encoder.safetensors").unlink()  # as if it had been killed on its last steps
    done = run_script(SCRIPT, *command, "resume=last", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(folder.relative_to(tmp_path)) in done.stdout
    again = load_file(folder / "encoder.safetensors")
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["images.path=nowhere"], "There is no folder nowhere"),
        (["images.path=.", "resume=nowhere"], "There is no run at nowhere"),
        (["images.path=.", "resume=last"], "No unfinished run in"),
    ],
)
def test_mistakes_end_with_one_sentence(overrides: list[str], message: str, tmp_path: Path) -> None:
    done = run_script(SCRIPT, *overrides, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
