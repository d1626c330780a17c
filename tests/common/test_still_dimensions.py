"""What stands still in the demonstrations is not blown up by normalisation, in any of its forms."""

import numpy as np
import pytest
import torch
from lerobot.configs import NormalizationMode
from lerobot.utils.constants import OBS_STATE
from lerobot_policy_pixio.configuration_pixio_bc import PixioBCConfig
from lerobot_policy_pixio.vision_config import make_processors

from pixio_robot.common.still_dimensions import still_dimensions, with_floor

VALUES = np.stack([np.full(50, 1.5), np.linspace(-2, 2, 50), 1e-5 * np.linspace(0, 1, 50)], axis=1).astype(np.float32)


def statistics(values: np.ndarray = VALUES) -> dict[str, dict[str, np.ndarray]]:
    ends = {name: np.quantile(values, share, axis=0) for name, share in (("q01", 0.01), ("q99", 0.99))}
    plain = {"mean": values.mean(0), "std": values.std(0), "min": values.min(0), "max": values.max(0)}
    camera = {name: np.zeros((3, 1, 1)) for name in plain}
    return {OBS_STATE: plain | ends, "observation.images.top": camera}


def test_numbers_that_stand_still_are_found() -> None:
    assert still_dimensions(statistics()) == {OBS_STATE: [0, 2]}
    assert still_dimensions(statistics(VALUES[:, 1:2])) == {}
    assert still_dimensions(statistics(VALUES[:, :1])) == {OBS_STATE: [0]}  # nothing moves at all


@pytest.mark.parametrize("mode", [NormalizationMode.MEAN_STD, NormalizationMode.MIN_MAX, NormalizationMode.QUANTILES])
def test_a_small_movement_of_what_stood_still_stays_small(mode: NormalizationMode) -> None:
    config = PixioBCConfig(normalization_mapping={"VISUAL": NormalizationMode.IDENTITY, "STATE": mode, "ACTION": mode})
    config.device = "cpu"
    from lerobot.configs import FeatureType, PolicyFeature

    config.input_features = {OBS_STATE: PolicyFeature(FeatureType.STATE, (3,))}
    config.output_features = {}
    own = {OBS_STATE: statistics()[OBS_STATE]}
    preprocess, _ = make_processors(
        config, {key: {k: torch.as_tensor(v) for k, v in vs.items()} for key, vs in own.items()}
    )

    def normalised(state: np.ndarray) -> np.ndarray:
        return preprocess({OBS_STATE: torch.as_tensor(state, dtype=torch.float32)})[OBS_STATE].numpy().ravel()

    resting, moved = normalised(VALUES[25]), normalised(VALUES[25] + [1e-4, 0, 0])
    assert abs(moved[0] - resting[0]) < 0.1
    assert np.abs(resting).max() < 2
    # What does move is normalised as ever.
    plain, _ = make_processors(config, {OBS_STATE: {k: torch.as_tensor(v[1:2]) for k, v in own[OBS_STATE].items()}})
    alone = plain({OBS_STATE: torch.as_tensor(VALUES[25][1:2])})[OBS_STATE].numpy().ravel()
    assert alone == pytest.approx(resting[1:2])


def test_statistics_of_cameras_and_moving_numbers_stay_as_they_are() -> None:
    before, after = statistics(), with_floor(statistics())
    assert after["observation.images.top"]["std"].shape == (3, 1, 1)
    assert after[OBS_STATE]["std"][1] == before[OBS_STATE]["std"][1]
    assert after[OBS_STATE]["std"][0] == pytest.approx(4e-3)
    assert (after[OBS_STATE]["max"] - after[OBS_STATE]["min"])[0] == pytest.approx(8e-3, rel=1e-4)
