"""Collect demonstrations of an environment's scripted expert, or of your own hand, into a zarr store.

uv run scripts/collect_demos.py env=robosuite_lift episodes=100 output=outputs/demos/lift.zarr
uv run scripts/collect_demos.py env=robosuite_lift episodes=10 expert=keyboard
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.workers import start_server


@entry_point("collect_demos")
def main(cfg: DictConfig) -> None:
    """See configs/collect_demos.yaml for every choice."""
    if cfg.expert == "scripted":
        start_server(["pixio_robot.demos.collection.collection"])
    from pixio_robot.demos.collection.collection import collect, store_path_for
    from pixio_robot.environments import env_config_from

    fields = OmegaConf.to_container(cfg)
    env_config = env_config_from(fields["env"])
    expert, n_episodes, first_seed = fields["expert"], fields["episodes"], fields["first_seed"]
    store_path = fields["output"] or store_path_for(env_config, Path(fields["output_root"], "demos"), expert)
    if expert == "scripted":
        collect(
            env_config, store_path, n_episodes, first_seed=first_seed, workers=fields["workers"], codec=fields["codec"]
        )
    else:
        from pixio_robot.demos.collection.by_hand.teleoperation import record_by_hand

        record_by_hand(env_config, store_path, n_episodes, expert, first_seed=first_seed, codec=fields["codec"])


if __name__ == "__main__":
    main()
