"""A policy under perturbations, against itself on the unperturbed task."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from lerobot.envs.configs import PushtEnv
from PIL import Image
from rich.console import Console
from scipy.stats import binomtest
from toy_plugin import ToyEnvConfig

from pixio_robot.common.errors import UserError
from pixio_robot.evaluation.record import EvaluationRecord
from pixio_robot.evaluation.robustness.evaluate import (
    as_json,
    as_table,
    conditions_of_parts,
    evaluate_under_perturbations,
    perturbed_configs,
    save_picture,
)

SEEDS = range(100, 112)


def test_every_condition_meets_the_same_seeds_and_is_compared_with_the_nominal_one(
    checkpoint: Path, tmp_path: Path
) -> None:
    configs = perturbed_configs(ToyEnvConfig(), ["far"])
    rest = {"workers": 2, "batch_size": 4, "n_videos": 4, "console": Console(file=StringIO())}
    conditions = evaluate_under_perturbations(checkpoint, configs, SEEDS, tmp_path, **rest)
    nominal = EvaluationRecord.load(tmp_path / "evaluation" / "evaluation.json")
    far = EvaluationRecord.load(tmp_path / "perturbations" / "far.json")
    assert [row.record for row in conditions] == [nominal, far]
    assert [episode.seed for episode in far.episodes] == [episode.seed for episode in nominal.episodes] == list(SEEDS)
    assert (nominal.env["perturbation"], far.env["perturbation"]) == ("none", "far")

    pairs = [(a.success, b.success) for a, b in zip(nominal.episodes, far.episodes, strict=True)]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    assert lost > won
    first, second = as_json(conditions)
    assert first["p_against_nominal"] is None
    assert (second["lost"], second["won"]) == (lost, won)
    assert second["p_against_nominal"] == pytest.approx(binomtest(lost, lost + won).pvalue)
    assert second["ci95"] == pytest.approx(list(binomtest(far.n_successes, len(SEEDS)).proportion_ci(method="wilson")))
    assert second["versions"] == far.versions
    json.dumps([first, second])

    screen = Console(file=StringIO(), width=80)
    screen.print(as_table(conditions))
    assert isinstance(screen.file, StringIO)
    assert f"({nominal.n_successes}/12)" in screen.file.getvalue()
    assert f"({far.n_successes}/12)" in screen.file.getvalue()
    save_picture(conditions, tmp_path / "pictures" / "bars.png")
    picture = Image.open(tmp_path / "pictures" / "bars.png").convert("RGB")
    colours = {colour for _, colour in picture.getcolors(1 << 24)}
    assert {(153, 153, 153), (31, 119, 180)} <= colours  # the nominal bar and the other one

    # In two parts, and joined, it is the same, down to the videos.
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder, seeds in zip(folders, (SEEDS[:4], SEEDS[4:]), strict=True):
        evaluate_under_perturbations(checkpoint, configs, seeds, folder, **rest)
    joined = conditions_of_parts(folders, configs, tmp_path / "joined", 4)
    assert as_json(joined) == as_json(conditions)
    for file in ("evaluation/evaluation.json", "perturbations/far.json"):
        one, other = (EvaluationRecord.load(tmp_path / place / file) for place in ("", "joined"))
        assert [replace(e, seconds=0) for e in one.episodes] == [replace(e, seconds=0) for e in other.episodes]
    assert (videos := sorted((tmp_path / "joined" / "evaluation" / "videos").iterdir()))
    assert all(file.read_bytes() == (tmp_path / "evaluation" / "videos" / file.name).read_bytes() for file in videos)


@pytest.mark.parametrize(
    ("env_config", "names", "words"),
    [
        (ToyEnvConfig(), ["fa"], "did you mean 'far'"),
        (ToyEnvConfig(perturbation="far"), ["far"], "both given"),
        (ToyEnvConfig(), ["none"], "at least one"),
        (ToyEnvConfig(), ["far", "far"], "each of them once"),
        (PushtEnv(), ["far"], "has no perturbations"),
    ],
    ids=["unknown", "twice", "none", "repeated", "environment"],
)
def test_perturbations_that_cannot_be_are_refused(env_config: ToyEnvConfig, names: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        perturbed_configs(env_config, names)
