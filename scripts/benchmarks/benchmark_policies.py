"""Measure our policies beside LeRobot's own: samples trained per second, or success after the same minutes."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError, nearest_name


@entry_point("benchmark_policies")
def main(cfg: DictConfig) -> None:
    """Compare both sides and print tables; see configs/benchmark_policies.yaml."""
    from policy_speed.comparison import chosen
    from policy_speed.job import PolicyBenchmark, measure_speed, measure_success
    from policy_speed.tables import print_speed, print_success

    from pixio_robot.encoders import EncoderConfig
    from pixio_robot.training import DemosConfig, TrainerConfig

    fields = OmegaConf.to_container(cfg)
    benchmark = PolicyBenchmark(
        comparisons=chosen(fields["compare"], fields["comparisons"]),
        encoder=EncoderConfig(**fields["encoder"]),
        env=fields["env"],
        demos=DemosConfig(**fields["demos"]),
        trainer=TrainerConfig(**fields["trainer"]),
        use_videos=fields["use_videos"],
        threads=fields["threads"],
        seed=fields["seed"],
        output_root=Path(fields["output_root"]),
        output=Path(fields["output"]),
    )
    console = Console()
    if cfg.mode == "speed":
        print_speed(measure_speed(benchmark, console, **fields["speed"]), console)
    elif cfg.mode == "success":
        settings = fields["success"]
        first = settings.pop("first_seed")
        seeds = range(first, first + settings.pop("episodes"))
        print_success(measure_success(benchmark, console, seeds=seeds, **settings), console)
    else:
        raise UserError(f"Unknown mode {cfg.mode!r}. {nearest_name(cfg.mode, ['speed', 'success'])}")
    console.print(f"record {benchmark.output / f'{cfg.mode}.json'}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
