"""An evaluation in parts, as its job does it."""

from pathlib import Path

import pytest
import toy_plugin  # noqa: F401 (registers the environment)

from pixio_robot.cli.entry_points import load_job
from pixio_robot.common.errors import UserError
from pixio_robot.evaluation.record import EvaluationRecord


def test_parts_become_one_run(checkpoint: Path, tmp_path: Path) -> None:
    job = load_job("evaluate_policy")

    def evaluate(run: str | None = "big", **given: int) -> None:
        small = {
            "env": {"type": "pixio_toy"},
            "checkpoint": str(checkpoint),
            "workers": 1,
            "videos": 1,
            "batch_size": 2,
        }
        job.main(job.settings(**{**small, "episodes": 5, "output_root": str(tmp_path), "run": run, **given}))

    with pytest.raises(UserError, match="add run=NAME"):
        evaluate(None, part=1, parts=2)
    evaluate(part=1, parts=2)
    with pytest.raises(UserError, match=r"big\.parts lacks 2-of-2"):
        evaluate(parts=2)
    evaluate(part=2, parts=2)
    with pytest.raises(UserError, match=r"1-of-2 was made otherwise .*\(episodes=5 there and 6 here\)"):
        evaluate(parts=2, episodes=6)
    evaluate(parts=2)
    run = tmp_path / "evaluate_policy" / "big"
    record = EvaluationRecord.load(run / "evaluation" / "evaluation.json")
    assert [episode.seed for episode in record.episodes] == list(range(100000, 100005))
    assert sum(episode.video is not None for episode in record.episodes) == 1
    assert (run / "report.html").is_file()
    evaluate("whole")
    whole = EvaluationRecord.load(tmp_path / "evaluate_policy" / "whole" / "evaluation" / "evaluation.json")
    found = [[(e.seed, e.success, e.steps, e.total_reward, e.video) for e in one.episodes] for one in (record, whole)]
    assert found[0] == found[1]
