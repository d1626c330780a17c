"""Checkpoints that would run or read something when they are loaded: nothing runs, and the sentence names the file."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.kept import seal
from pixio_robot.evaluation.checkpoints import open_checkpoint

PREPROCESSOR = "policy_preprocessor.json"


def with_step(**step: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        described = json.loads((folder / PREPROCESSOR).read_text())
        described["steps"].insert(0, json.loads(json.dumps(step).replace("MARK", str(folder / "mark"))))
        (folder / PREPROCESSOR).write_text(json.dumps(described))

    return edit


def with_state_elsewhere(folder: Path) -> None:
    described = json.loads((folder / PREPROCESSOR).read_text())
    (step,) = [step for step in described["steps"] if "state_file" in step]
    (folder / step["state_file"]).rename(folder.parent / "elsewhere.safetensors")
    step["state_file"] = "../elsewhere.safetensors"
    (folder / PREPROCESSOR).write_text(json.dumps(described))


def with_link(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.rename(folder.parent / "elsewhere.safetensors")
    weights.symlink_to("../elsewhere.safetensors")


def with_config(**fields: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **fields}))

    return edit


def with_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


EDITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a class that runs a command": (
        with_step(**{"class": "subprocess.Popen", "config": {"args": ["touch", "MARK"]}}),
        "one of its steps is the class subprocess.Popen",
    ),
    "a class of a module": (
        with_step(**{"class": "antigravity.Step"}),
        "one of its steps is the class antigravity.Step",
    ),
    "a step that nobody registered": (with_step(registry_name="mine"), "one of its steps is the unregistered mine"),
    "a name that is none": (with_step(registry_name=["to_batch_processor"]), "one of its steps is the unregistered"),
    "code from elsewhere": (
        with_step(registry_name="tokenizer_processor", config={"tokenizer_name": "a/b", "trust_remote_code": True}),
        "set up to run code from elsewhere",
    ),
    "statistics elsewhere": (with_state_elsewhere, "keeps its state outside the checkpoint"),
    "weights elsewhere": (with_link, "is a link to"),
    "adapters for a model elsewhere": (with_config(use_peft=True), "holds adapters for a policy that lies elsewhere"),
    "no processor": (with_text(PREPROCESSOR, "[]"), "is no processor of LeRobot's"),
    "nested too deeply": (with_text(PREPROCESSOR, "[" * 100_000), "nested too deeply"),
    "half a config": (with_text("config.json", '{"type": "ac'), "config.json is damaged: it is no JSON"),
    "a field of another type": (with_config(chunk_size={"a": 1}), "config.json is not a config of act"),
    "an unknown field": (with_config(surprise=1), "config.json is not a config of act"),
    "broken statistics": (
        lambda folder: next(folder.glob("*normalizer_processor.safetensors")).write_bytes(b"no numbers"),
        "is damaged",
    ),
}


@pytest.mark.parametrize(("edit", "sentence"), EDITS.values(), ids=EDITS.keys())
def test_nothing_of_a_checkpoint_runs_or_leads_out_of_it(
    checkpoint: Path, edit: Callable[[Path], object], sentence: str, tmp_path: Path
) -> None:
    folder = tmp_path / "pretrained_model"
    shutil.copytree(checkpoint, folder)
    edit(folder)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        open_checkpoint(folder)
    assert str(folder) in str(caught.value)
    assert not (folder / "mark").exists()


def test_weights_that_are_not_as_they_were_saved_are_named(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "pretrained_model")
    seal(folder, "*.safetensors")
    assert open_checkpoint(folder).type == "act"
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="cannot be used: model.safetensors is damaged"):
        open_checkpoint(folder)


def test_a_download_of_the_hub_is_followed_into_its_blobs(checkpoint: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1234"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(checkpoint.iterdir()):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert open_checkpoint(snapshot).type == "act"
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(checkpoint / "config.json")
    with pytest.raises(UserError, match="is a link to"):
        open_checkpoint(snapshot)
