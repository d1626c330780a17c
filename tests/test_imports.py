"""Imports point one way: each package imports with the ones it must not need blocked."""

import graphlib
import subprocess
import sys

import grimp
import pytest

SIMULATORS = ["mujoco", "robosuite", "gymnasium"]


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        (
            [
                f"pixio_robot.pretraining.{name}"
                for name in ("curation.scoring", "sources.shards", "sources.lerobot_frames")
            ],
            ["lerobot", "lerobot_env_pixio", "lerobot_policy_pixio", *SIMULATORS],
        ),
        (
            [f"pixio_robot.{name}" for name in ("encoders", "pretraining.job", "pretraining.sources.live")],
            ["lerobot", "lerobot_env_pixio", "lerobot_policy_pixio", "webdataset", "pyarrow", "av", *SIMULATORS],
        ),
        (["pixio_robot.demos.store.store", "pixio_robot.demos.windows.windows"], ["lerobot", *SIMULATORS]),
        (
            ["lerobot_env_pixio.simulators.robosuite", "lerobot_env_pixio.scenes", "lerobot_env_pixio.simulated_robot"],
            ["pixio_robot", "lerobot_policy_pixio"],
        ),
        (["lerobot_policy_pixio.modeling_pixio_act"], ["lerobot_env_pixio", "mujoco", "robosuite"]),
        (
            ["pixio_robot.training.job", "pixio_robot.evaluation.rollouts.evaluate"],
            ["lerobot_env_pixio", "lerobot_policy_pixio", "mujoco", "robosuite"],
        ),
        (
            [f"pixio_robot.deployment.{name}" for name in ("artifact", "runtime", "remote.client", "remote.server")],
            ["timm", "lerobot", "zarr", "hydra", "safetensors", "rich", "pydantic", *SIMULATORS],
        ),
        (
            ["pixio_robot.deployment.verification"],
            ["timm", "lerobot", "zarr", "hydra", "safetensors", *SIMULATORS],
        ),
    ],
)
def test_imports_without(modules: list[str], blocked: list[str]) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {', '.join(modules)}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_circle_of_files() -> None:
    graph = grimp.build_graph(
        "pixio_robot", "lerobot_env_pixio", "lerobot_policy_pixio", exclude_type_checking_imports=True, cache_dir=None
    )
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # CycleError names the files of a circle
