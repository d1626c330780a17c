"""Configs of jobs, composed as their scripts compose them."""

from typing import Any

from omegaconf import OmegaConf

from pixio_robot.cli.composition import compose
from pixio_robot.cli.entry_points import load_job


def composed(name: str, *overrides: str) -> dict[str, Any]:
    """Return the config of a job as plain values, with what overrides of its command line say."""
    fields = OmegaConf.to_container(compose(name, load_job(name).settings, overrides), resolve=True)
    assert isinstance(fields, dict)
    return {str(key): value for key, value in fields.items()}
