"""Collect demonstrations of an environment's scripted expert into a zarr store.

uv run scripts/collect_demos.py env=robosuite_lift episodes=100 output=outputs/demos/lift.zarr
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pixio_robot.entry_points import entry_point
from pixio_robot.evaluation.workers import start_server


@entry_point("collect_demos")
def main(cfg: DictConfig) -> None:
    """See configs/collect_demos.yaml for every choice."""
    start_server(["pixio_robot.demos.collection"])
    from pixio_robot.demos.collection import collect, store_path_for
    from pixio_robot.evaluation.environments import env_config_from

    fields = OmegaConf.to_container(cfg)
    env_config = env_config_from(fields["env"])
    collect(
        env_config,
        fields["output"] or store_path_for(env_config, Path(fields["output_root"], "demos")),
        fields["episodes"],
        first_seed=fields["first_seed"],
        workers=fields["workers"],
    )


if __name__ == "__main__":
    main()
