"""Measure how fast a demonstration store gives windows, beside a memory map and LeRobot's dataset, or its memory."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError, nearest_name


@entry_point("benchmark_demos")
def main(cfg: DictConfig) -> None:
    """See configs/benchmark_demos.yaml for every choice."""
    fields = OmegaConf.to_container(cfg)
    console, output = Console(), Path(fields["output"])
    window = {"n_obs_steps": fields["n_obs_steps"], "action_horizon": fields["action_horizon"]}
    if cfg.mode == "windows":
        from demo_speed.tables import print_windows
        from demo_speed.windows import measure_windows

        from pixio_robot.demos import DemoStore

        if cfg.path is None:
            raise UserError("path must be given: add path=… with a demonstration store that collect_demos.py made.")
        store = DemoStore.open(cfg.path)
        result = measure_windows(store, output, **window, **fields["windows"], console=console)
        print_windows(result, console)
    elif cfg.mode == "memory":
        from demo_speed.memory import measure_memory
        from demo_speed.tables import print_memory

        result = measure_memory(output, **window, **fields["memory"], console=console)
        print_memory(result, console)
    else:
        raise UserError(f"Unknown mode {cfg.mode!r}. {nearest_name(cfg.mode, ['windows', 'memory'])}")
    from pixio_robot.common.files import write_json

    write_json(output / f"{cfg.mode}.json", result)
    console.print(f"record {output / f'{cfg.mode}.json'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
