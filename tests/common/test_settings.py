"""Settings: what is wrong with them is one sentence that names the field as a user writes it."""

import copy
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator
from pytest import mark, raises

from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import (
    Count,
    NonNegative,
    Place,
    Positive,
    Share,
    Switch,
    Text,
    fields_of,
    plain,
    settings,
)


@settings
class Trainer:
    steps: Count = 2500
    """Optimiser steps."""
    rate: Positive = 1e-3
    mode: Literal["frozen", "finetune"] = "frozen"
    scale: tuple[Share, Share] = (0.2, 1.0)
    names: tuple[Text, ...] = ("a",)
    project: Text | None = None
    cache: Switch = True
    root: Place = Path("outputs")
    weights: dict[int, NonNegative] = dataclasses.field(default_factory=dict)


@settings(kw_only=True)
class Folder:
    kind: Literal["folder"] = "folder"
    path: Text


@settings(kw_only=True)
class Live:
    kind: Literal["live"] = "live"
    side: Count = 16


@settings(kw_only=True)
class Job:
    trainer: Trainer = dataclasses.field(default_factory=Trainer)
    images: Annotated[Folder | Live, Discriminator("kind")]
    rows: Mapping[str, Trainer] = dataclasses.field(default_factory=dict)
    env: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.trainer.steps == 13:
            raise UserError("Thirteen steps bring bad luck.")


LIVE = {"kind": "live"}


@mark.parametrize(
    ("values", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0."),
        ({"steps": 1.5}, "steps must be a whole number of at least 1, got 1.5."),
        ({"steps": "3"}, "steps must be a whole number of at least 1, got '3'."),
        ({"steps": True}, "steps must be a whole number of at least 1, got true."),
        ({"rate": -1}, "rate must be a number above 0, got -1."),
        ({"rate": math.nan}, "rate must be a number above 0, got nan."),
        ({"rate": math.inf}, "rate must be a number above 0, got inf."),
        ({"mode": "frozn"}, "Unknown mode 'frozn'. Did you mean 'frozen'?"),
        ({"mode": None}, "mode must be frozen or finetune, got null."),
        ({"scale": [0.2, 2]}, "scale.1 must be a number from 0 to 1, got 2."),
        ({"scale": 3}, "scale must be a list of 2, each a number from 0 to 1, got 3."),
        ({"names": "abc"}, "names must be a list such as [a,b], each entry text, got 'abc'."),
        ({"project": 2024}, "project must be text or null, got 2024."),
        ({"project": ""}, "project must be text or null, got ''."),
        ({"cache": "yes"}, "cache must be true or false, got 'yes'."),
        ({"root": None}, "root must be a path, got null."),
        ({"root": ""}, "root must be a path, got ''."),
        ({"weights": {"7": -2}}, "weights.7 must be a number of at least 0, got -2."),
        ({"stepz": 3}, "Unknown setting 'stepz'. Did you mean 'steps'?"),
    ],
)
def test_a_wrong_value_is_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with raises(UserError) as caught:
        Trainer(**values)
    assert str(caught.value).startswith(sentence)


@mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "images must be given: add images=… to the command."),
        ({"images": {"kind": "foldr"}}, "Unknown images.kind 'foldr'. Did you mean 'folder'?"),
        ({"images": {"kind": "folder"}}, "images.path must be given"),
        ({"images": {"kind": "folder", "path": 3}}, "images.path must be text, got 3."),
        ({"images": {"kind": "live", "path": "a"}}, "Unknown setting 'images.path'. Valid names: kind, side."),
        ({"images": LIVE, "trainer": {"steps": 0}}, "trainer.steps must be a whole number"),
        ({"images": LIVE, "trainer": {"stepz": 0}}, "Unknown setting 'trainer.stepz'. Did you mean 'steps'?"),
        ({"images": LIVE, "rows": {"mine": {"steps": 0}}}, "rows.mine.steps must be a whole number"),
        ({"images": LIVE, "trainer": {"steps": 13}}, "Thirteen steps bring bad luck."),
    ],
)
def test_a_wrong_value_in_a_group_is_named_by_its_whole_path(values: dict[str, Any], sentence: str) -> None:
    with raises(UserError) as caught:
        Job(**values)
    assert str(caught.value).startswith(sentence)


def test_settings_are_frozen_dataclasses_that_survive_files_and_processes() -> None:
    job = Job(images=Folder(path="here"), trainer=Trainer(weights={7: 2}))
    assert Job(**plain(job)) == job == copy.deepcopy(job)  # by the protocol that takes it to a worker process
    assert dataclasses.replace(job.trainer, steps=3).steps == 3
    with raises(dataclasses.FrozenInstanceError):
        job.trainer.steps = 4  # type: ignore[misc]
    with raises(UserError, match="steps must be"):
        dataclasses.replace(job.trainer, steps=0)


def test_the_sentence_under_a_field_explains_it() -> None:
    assert fields_of(Trainer)["steps"].description == "Optimiser steps."
