"""Artifacts: a policy or an encoder as one file, read with torch alone."""

from pixio_robot.common.noise import chunk_noise
from pixio_robot.deployment.artifact.loading import load_artifact, read_metadata

__all__ = ["chunk_noise", "load_artifact", "read_metadata"]
