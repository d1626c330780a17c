"""Look into a demonstration store: what it holds, pictures of it, and signs of damage.

uv run scripts/inspect_demos.py path=outputs/demos/lift.zarr
"""

from pathlib import Path

from omegaconf import DictConfig

from pixio_robot.cli.entry_points import entry_point


@entry_point("inspect_demos")
def main(cfg: DictConfig) -> None:
    """See configs/inspect_demos.yaml for every choice."""
    from pixio_robot.demos.inspection.report import run_inspection

    run_inspection(
        cfg.path,
        Path(cfg.output) if cfg.output is not None else None,
        episode=cfg.episode,
        video=cfg.video,
        frozen_steps=cfg.frozen_steps,
    )


if __name__ == "__main__":
    main()
