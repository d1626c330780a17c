"""The verdict on held-out episodes: errors beside guesses, in the actions' own units."""

import json
from pathlib import Path

import numpy as np
import pytest

from pixio_robot.common.errors import UserError
from pixio_robot.evaluation.open_loop import Foreseen, HeldOutRecord, judge, save_pictures

STEPS, HORIZON = 12, 4


def foreseen(episode: int, offset: float) -> Foreseen:
    """A ramp of slope 1 a step, and a second number that stands still; the policy is off by `offset`."""
    starts = np.arange(0, STEPS, 2)
    at = starts[:, None] + np.arange(HORIZON)
    recorded = np.stack([at.astype(float), np.full(at.shape, 3.0)], axis=-1)
    again = np.broadcast_to(recorded[:, :1] - [1.0, 0.0], recorded.shape)
    return Foreseen(episode, starts, recorded + [offset, 0.0], recorded, at < STEPS, {"last action again": again})


def test_errors_are_relative_to_the_deviation_and_beside_guesses(tmp_path: Path) -> None:
    found = [foreseen(3, 0.1), foreseen(5, 0.3), foreseen(8, 0.2)]
    record = judge(found, ["x", "grip"], np.array([2.0, 0.0]), executed=2, checkpoint="here")
    assert record.error == pytest.approx([0.2, 0.0])
    assert record.relative["policy"] == pytest.approx((0.2 / 2 + 0) / 2)
    low, high = record.intervals["policy"]
    assert 0.1 / 4 - 1e-9 <= low < 0.05 < high <= 0.3 / 4 + 1e-9
    # One step behind at first and four at the end; the last window reaches two steps beyond the episode.
    errors = [step + 1 for start in range(0, STEPS, 2) for step in range(HORIZON) if start + step < STEPS]
    assert record.relative["last action again"] == pytest.approx(np.mean(errors) / 2 / 2)
    assert [step[0] for step in record.error_by_step] == pytest.approx([0.2] * HORIZON)
    # From the second action of a chunk to the first of the next is one step, as in the recording.
    assert record.joins == pytest.approx({"policy": 0.25, "recorded": 0.25})
    assert "3 held-out episodes" in record.summary()
    assert "better than every guess" in record.summary()
    record.save(tmp_path / "held_out.json")
    assert json.loads((tmp_path / "held_out.json").read_text())["episodes"] == [3, 5, 8]
    assert HeldOutRecord.load(tmp_path / "held_out.json") == record
    asked = []

    def frame(episode: int, step: int) -> np.ndarray:
        asked.append((episode, step))
        return np.zeros((4, 6, 3), np.uint8)

    save_pictures(found, record, 2, tmp_path, frame)
    assert {episode for episode, _ in asked} == {3, 5, 8}
    assert all(
        abs(one - other) != 2 for _, one in asked[:3] for _, other in asked[:3]
    )  # chunks are 2 apart: no neighbours
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "held out best episode 3.png",
        "held out median episode 8.png",
        "held out worst episode 5.png",
    }


def test_a_policy_that_is_no_better_than_a_guess_is_called_that() -> None:
    record = judge(
        [foreseen(0, 9.0), foreseen(1, 8.0)], ["x", "grip"], np.array([2.0, 1.0]), executed=2, checkpoint="here"
    )
    assert "NOT clearly better" in record.summary()


def test_a_record_of_others_is_named(tmp_path: Path) -> None:
    for content in ("[]", "{}", '{"episodes": 3}'):
        (tmp_path / "held_out.json").write_text(content)
        with pytest.raises(UserError, match="held_out.json is no record of held-out episodes"):
            HeldOutRecord.load(tmp_path / "held_out.json")
