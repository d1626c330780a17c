"""Demonstrations collected in parts are those of one collection."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from toy_expert_env import ToyExpertEnvConfig

from pixio_robot.common.storage.parts import Parts
from pixio_robot.demos import DemoStore
from pixio_robot.demos.collection.collection import SCRIPTED, collect, store_attributes
from pixio_robot.demos.collection.in_parts import collect_part, join_parts

QUIET = Console(file=StringIO())


@pytest.mark.parametrize("codec", ["lossless", "jpeg"])
def test_joined_parts_and_the_seeds_behind_them_are_one_collection(tmp_path: Path, codec: str) -> None:
    config = ToyExpertEnvConfig(expert_fails_thirds=True)
    whole = collect(config, tmp_path / "whole.zarr", 5, first_seed=1, workers=1, codec=codec, console=QUIET)
    assert whole.episode_seeds.tolist() == [2, 3, 5, 6, 8]  # seeds 1, 4 and 7 fail

    path, attributes = tmp_path / "parts.zarr", store_attributes(config, 1, SCRIPTED)
    for part in (3, 1, 2, 4, 5):  # of a seed each; the first and the fourth hold nothing
        Parts(part=part, parts=5).of(path, range(1, 6), {}).make(
            lambda seeds, folder: collect_part(config, folder, seeds, 1, workers=1, console=QUIET)
        )
    folders = Parts(parts=5).of(path, range(1, 6), {}).joined()
    join_parts(folders, path, 5, attributes, codec)
    assert DemoStore.open(path).episode_seeds.tolist() == [2, 3, 5]
    join_parts(folders, path, 5, attributes, codec)  # again, as after a kill: nothing comes twice
    joined = collect(config, path, 5, first_seed=1, workers=1, codec=codec, console=QUIET)
    assert joined.fingerprint() == whole.fingerprint()
    assert joined.attributes == whole.attributes
    assert joined.episode_seeds.tolist() == whole.episode_seeds.tolist()
    for key in whole.features:
        np.testing.assert_array_equal(joined.read(key, 0, joined.num_steps), whole.read(key, 0, whole.num_steps))


def test_no_more_episodes_are_joined_than_are_wanted(tmp_path: Path) -> None:
    config = ToyExpertEnvConfig()
    collect_part(config, tmp_path / "1", range(3), 0, workers=1, console=QUIET)
    join_parts([tmp_path / "1"], tmp_path / "demos.zarr", 2, store_attributes(config, 0, SCRIPTED), "lossless")
    assert DemoStore.open(tmp_path / "demos.zarr").episode_seeds.tolist() == [0, 1]
