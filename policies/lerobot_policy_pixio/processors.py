"""Processors of all our policies: LeRobot's default pipelines (batching, device, normalisation of state and action)."""

from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.processor import PolicyProcessorPipeline, make_default_pre_post_processors
from torch import Tensor


def make_processors(
    config: PreTrainedConfig, dataset_stats: dict[str, dict[str, Tensor]] | None = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Return the pre- and post-processing pipelines.

    Args:
        config: The policy's configuration.
        dataset_stats: Normalisation statistics by feature, as LeRobot datasets carry them.
    """
    processors: tuple[Any, Any] = make_default_pre_post_processors(
        config, dataset_stats, normalizer_device=config.device
    )
    return processors
