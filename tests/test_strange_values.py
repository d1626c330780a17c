"""A fuzzer over what others may have written: each value is taken, or refused in a sentence, without a traceback."""

import contextlib
import copy
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_servers import DESCRIBED

from pixio_robot.common.errors import UserError
from pixio_robot.common.storage.documents import read_yaml
from pixio_robot.common.storage.json_lines import read_lines, seconds_of_phases
from pixio_robot.demos.store.layout import SCHEMA, SCHEMA_VERSION, read_attributes
from pixio_robot.deployment.artifact.metadata import check_metadata
from pixio_robot.deployment.remote.openpi import pack, unpack_observation
from pixio_robot.deployment.remote.protocol import MalformedMessageError, decode
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.pretraining.model_card import write_model_card

EPISODE = {"seed": 1, "success": True, "steps": 3, "return": 1.5, "seconds": 2.0, "video": "videos/1.mp4"}
RECORD = {
    **{"episodes": [EPISODE], "env": {"type": "a"}, "render_profile": None, "versions": {"torch": "2"}},
    **{"checkpoint": "c", "seconds": 1.0, "workers": 1, "batch_size": 1},
    "crashes": [{"seed": 1, "attempt": 1, "reason": "x"}],
}
LINE = {
    **{"phase": "training", "event": "started", "step": 3, "loss": 0.5, "seconds": 2.0, "lr": 1e-3},
    **{
        "command": ["train"],
        "images": 24,
        "skipped_images": [],
        "steps": 5,
        "processes": 1,
        "linear_probe": 0.1,
        "knn": 0.2,
    },
}
CONFIG = {
    "training": {
        "variant": "pixio_tiny16",
        "teacher": "pixio_tiny16",
        "teacher_weights": "pretrained",
        "batch_size": 4,
    },
    "images": {"kind": "folder", "path": ["a"]},
}
STORE = {
    **{"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "fps": 10, "tasks": ["lift"]},
    "features": {"action": {"shape": [2], "dtype": "float32"}},
}
MESSAGE = {"type": "predict", "id": 1, "chunk": 0, "observation": {"x": {"dtype": "uint8", "shape": [1], "data": b"a"}}}

STRANGE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def mutated(value: Any, draw: Callable[[st.SearchStrategy], Any]) -> Any:
    """Return a value with one place in it left out or made strange."""
    whole = copy.deepcopy(value)
    place: Any = whole
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        if draw(st.booleans()):
            del place[key]
        else:
            place[key] = draw(STRANGE)
        return whole


def tried_on_a_record(value: Any, folder: Path) -> None:
    (folder / "evaluation.json").write_text(json.dumps(value))
    record = EvaluationRecord.load(folder / "evaluation.json")
    assert 0 <= record.success_rate <= 1 and record.seconds >= 0 and record.summary()
    assert all(episode.video is None or ".." not in Path(episode.video).parts for episode in record.episodes)


def tried_on_a_log(value: Any, folder: Path) -> None:
    (folder / "log.jsonl").write_text(json.dumps(value) + "\n" + json.dumps(LINE)[:-9] + "\n")
    for line in read_lines(folder / "log.jsonl"):
        assert isinstance(line.get("phase", ""), str) and isinstance(line.get("step", 0), int)
    assert all(0 <= seconds < math.inf for seconds in seconds_of_phases(read_lines(folder / "log.jsonl")).values())
    write_model_card(folder, "training", "loss")


def tried_on_a_config(value: Any, folder: Path) -> None:
    for name in ("config.yaml", "environment.json"):
        (folder / name).write_text(json.dumps(value))
    write_model_card(folder, "training", "loss")


def tried_on_a_store(value: Any, folder: Path) -> None:
    (folder / "zarr.json").write_text(json.dumps({"attributes": value}))
    attributes = read_attributes(folder)
    assert 0 < attributes["fps"] < math.inf
    assert all(side > 0 for feature in attributes["features"].values() for side in feature["shape"])


def tried_on_a_message(value: Any, folder: Path) -> None:
    packed = pack(value)
    for received in (packed, packed[:-1], packed + b"\x80", packed[::-1]):
        with contextlib.suppress(MalformedMessageError):
            assert set(decode(received, "predict")) == {"type", "id", "chunk", "observation"}
        with contextlib.suppress(MalformedMessageError, UserError):
            unpack_observation(received, DESCRIBED)


TARGETS: dict[str, tuple[dict[str, Any], Callable[[Any, Path], object]]] = {
    "metadata": (DESCRIBED, lambda value, folder: check_metadata(value, "a file")),
    "record": (RECORD, tried_on_a_record),
    "log": (LINE, tried_on_a_log),
    "config": (CONFIG, tried_on_a_config),
    "store": (STORE, tried_on_a_store),
    "message": (MESSAGE, tried_on_a_message),
}


def fuzz(target: str, tries: int) -> None:
    honest, try_ = TARGETS[target]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try_(honest, folder)

        @settings(max_examples=tries, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.data())
        def run(data: st.DataObject) -> None:
            value = mutated(honest, data.draw) if data.draw(st.booleans()) else data.draw(STRANGE)
            with contextlib.suppress(UserError):
                try_(value, folder)

        run()


@pytest.mark.parametrize("target", TARGETS)
def test_a_hundred_strange_values(target: str) -> None:
    fuzz(target, 100)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_two_thousand_strange_values(target: str) -> None:
    fuzz(target, 2000)


@settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_strange_yaml(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.yaml"
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            read_yaml(path)


@pytest.mark.parametrize("content", ["!!timestamp z", "!!bool x", "!!int x", "!!omap [a]"])
def test_tags_of_yaml_that_do_not_fit(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match="is damaged: it is no YAML"):
        read_yaml(tmp_path / "config.yaml")


def test_a_pipe_a_device_or_a_folder_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "device", "folder"):
        with pytest.raises(UserError, match="it is no file"):
            read_yaml(tmp_path / name)
        assert read_lines(tmp_path / name) == []
