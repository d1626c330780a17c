"""One exported policy for all tests that need no particular one."""

from pathlib import Path

import pytest
from checkpoints import make_checkpoint, make_store

from pixio_robot.deployment.export.exporter import ExportOptions, export_policy


@pytest.fixture(scope="session")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a diffusion policy's checkpoint (`checkpoint`), its demonstrations and its artifact; not to be changed."""
    folder = tmp_path_factory.mktemp("sampler")
    store = make_store(folder / "demos.zarr")
    checkpoint = make_checkpoint("pixio_diffusion", "pixio_tiny16", store, folder).rename(folder / "checkpoint")
    options = ExportOptions(sampling_steps=2, control_rate_hz=1.0)  # any machine is fast enough for a step a second
    export_policy(checkpoint, store, folder / "policy.pt", options)
    return folder
