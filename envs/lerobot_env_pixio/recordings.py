"""What LeRobot's recorder does not ask a robot for: which episode is recorded, and how it ended.

`lerobot-record` tells a robot neither when an episode begins nor where its dataset is. It says the first on its log, which
`Announcements` follows; the second is named by the robot's config.

Letters of shape suffixes: T steps, A numbers of an action.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

logger = logging.getLogger(__name__)

ACTION, SUCCESS = "action", "next.success"
_INFO, _EXTRA_FILE = "meta/info.json", "meta/pixio_robot.json"


@dataclass
class Take:
    """An episode while it is recorded.

    Attributes:
        seed: Of the simulated episode.
        actions: What was carried out, (A,) each.
        success: Whether the task has been done in it.
    """

    seed: int
    actions: list[np.ndarray] = field(default_factory=list)
    success: bool = False


class Announcements(logging.Handler):
    """Follows what LeRobot's recorders say on the log (`lerobot.utils.utils.log_say`, 0.6).

    Attributes:
        is_recording: Whether somebody records, between episodes too.
        episode: Number of the episode that is being recorded; None between episodes.
        is_new: Whether that episode has just been announced; whoever has taken notice sets it to False.
        is_paused: Whether a person has stopped the policy, to correct it or to let it go on.
        is_resumed: Whether the policy has just been let go on; whoever has taken notice sets it to False.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.is_recording = self.is_new = self.is_paused = self.is_resumed = False
        self.episode: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Notice the beginning and the end of an episode, of a recording, and of a person's corrections."""
        said = record.getMessage()
        begins = re.fullmatch(r"Recording episode (\d+)", said)
        phase = re.fullmatch(r"Phase transition: \w+ -> (\w+)", said)  # of lerobot-rollout's corrections
        if phase:
            self.is_paused, self.is_recording = phase[1] == "paused", phase[1] != "autonomous"
            self.is_resumed = phase[1] == "autonomous"
        elif begins:
            self.episode, self.is_new, self.is_recording = int(begins[1]), True, True
        elif said in ("Reset the environment", "Re-record episode", "Stop recording"):
            self.episode = None
            self.is_recording &= said != "Stop recording"


def check_recording(root: Path, fps: int) -> None:
    """Look whether a dataset is being recorded in a folder, at the rate of the simulation.

    Raises:
        ValueError: There is none, or its rate is another.
    """
    try:
        recorded = json.loads((root / _INFO).read_bytes())["fps"]
    except (OSError, ValueError, KeyError):
        raise ValueError(
            f"--robot.recording={root} is no LeRobotDataset: give lerobot-record the folder that --dataset.root names; "
            "leave it out for lerobot-rollout, whose corrections are no whole episodes"
        ) from None
    if recorded != fps:
        raise ValueError(
            f"the simulated robot moves {fps} times a second, but the recording in {root} has {recorded} frames a second: "
            f"set --dataset.fps={fps}"
        )


def complete_recording(
    root: Path, takes: Mapping[int, Take], environment: Mapping[str, Any], action_names: Sequence[str]
) -> None:
    """Add to a finished recording what the simulation knows.

    Every row gets `next.success`, true at the last of an episode with success, and the task's own action instead of a device's;
    seeds and environment go to `meta/pixio_robot.json`, where imports into stores look for them.

    Args:
        root: Folder of the dataset.
        takes: By number of the recorded episode.
        environment: Type and fields of the environment.
        action_names: What an action's numbers are.
    """
    from lerobot.datasets import LeRobotDataset
    from lerobot.datasets.dataset_tools import recompute_stats
    from lerobot.datasets.feature_utils import get_hf_features_from_features

    info = json.loads((root / _INFO).read_bytes())
    lengths = _lengths(root)
    strange = [number for number, length in lengths.items() if length != len(takes.get(number, Take(0)).actions)]
    if not lengths or strange:
        logger.warning(
            "%s has episodes that this robot did not see to their end: %s; it is left as it is", root, strange
        )
        return
    features = info["features"]
    features[ACTION] |= {"shape": [len(action_names)], "names": list(action_names)}
    features[SUCCESS] = {"dtype": "bool", "shape": [1], "names": None}
    schema = get_hf_features_from_features(
        {key: {**feature, "shape": tuple(feature["shape"])} for key, feature in features.items()}
    ).arrow_schema
    for file in sorted((root / "data").glob("*/*.parquet")):
        table = pyarrow.parquet.read_table(file)
        places = list(zip(*(table[key].to_pylist() for key in ("episode_index", "frame_index")), strict=True))
        ours = {
            ACTION: [takes[number].actions[step] for number, step in places],
            SUCCESS: [takes[number].success and step == lengths[number] - 1 for number, step in places],
        }
        columns = [ours.get(name, table[name] if name in table.column_names else None) for name in schema.names]
        parts = [_array(column, schema.field(name).type) for name, column in zip(schema.names, columns, strict=True)]
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays(parts, schema=schema), file)
    (root / _INFO).write_text(json.dumps(info, indent=4))
    _write_episode_statistics(root, takes, lengths, features)
    ordered = [takes[number] for number in sorted(lengths)]
    known = {"seeds": [take.seed for take in ordered], "success": [take.success for take in ordered]}
    (root / _EXTRA_FILE).write_text(json.dumps({"attributes": {"env": dict(environment)}} | known, indent=2))
    recompute_stats(LeRobotDataset("local/recording", root=root))


def _array(column: Any, kind: pyarrow.DataType) -> Any:  # noqa: ANN401 (a column of a table, or a list)
    return column if isinstance(column, pyarrow.ChunkedArray) else pyarrow.array(column, kind)


def _lengths(root: Path) -> dict[int, int]:
    """Return the steps of every recorded episode."""
    lengths: dict[int, int] = {}
    for file in sorted((root / "data").glob("*/*.parquet")):
        numbers, counts = np.unique(
            pyarrow.parquet.read_table(file, columns=["episode_index"])["episode_index"].to_numpy(), return_counts=True
        )
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            lengths[number] = lengths.get(number, 0) + count
    return lengths


def _write_episode_statistics(
    root: Path, takes: Mapping[int, Take], lengths: Mapping[int, int], features: Mapping[str, Mapping[str, Any]]
) -> None:
    from lerobot.datasets.compute_stats import compute_episode_stats

    ours: dict[str, dict[str, Any]] = {key: dict(features[key]) for key in (ACTION, SUCCESS)}
    for file in sorted((root / "meta/episodes").glob("*/*.parquet")):
        table = pyarrow.parquet.read_table(file)
        of_episodes = []
        for number in table["episode_index"].to_pylist():
            success_T = np.arange(1, lengths[number] + 1) == (lengths[number] if takes[number].success else -1)
            values = {ACTION: np.stack(takes[number].actions), SUCCESS: success_T[:, None]}
            of_episodes.append(compute_episode_stats(values, ours))
        for key in ours:
            for name in of_episodes[0][key]:
                column = pyarrow.array([np.atleast_1d(stats[key][name]).tolist() for stats in of_episodes])
                place = f"stats/{key}/{name}"
                found = table.schema.get_field_index(place)
                table = table.append_column(place, column) if found < 0 else table.set_column(found, place, column)
        pyarrow.parquet.write_table(table, file)
