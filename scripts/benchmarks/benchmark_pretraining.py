"""Measure how fast pretraining is, from a plain trainer to this package's, and what each change gains."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from pixio_robot.cli.entry_points import entry_point


@entry_point("benchmark_pretraining")
def main(cfg: DictConfig) -> None:
    """Climb the ladder and print it; see configs/benchmark_pretraining.yaml."""
    import torch
    from pretraining_speed.ladder import ladder, measure
    from pretraining_speed.table import ladder_record, print_ladder

    from pixio_robot.common.files import write_json
    from pixio_robot.common.precision import bfloat16_slowdown
    from pixio_robot.common.progress import phase_progress
    from pixio_robot.images.augment import Photometric
    from pixio_robot.pretraining.config import PretrainConfig

    torch.set_num_threads(cfg.threads)
    names = ("device", "image_size", "mask_block", "batch_size", "accumulation")
    fields = OmegaConf.masked_copy(cfg, [*names, "decoder_dim", "decoder_depth", "decoder_heads"])
    config = PretrainConfig(
        variant=cfg.encoder.name,
        steps=cfg.steps * cfg.rounds,
        lr=1e-3,
        photometric=Photometric(),
        **{str(name): value for name, value in fields.items()},
    )
    console = Console()
    slowdown = bfloat16_slowdown() if torch.device(cfg.device).type == "cpu" else 0.0
    if slowdown > 1:
        console.print(
            f"bfloat16 is left out: this processor takes {slowdown:.1f} times as long for it as for float32.",
            highlight=False,
        )
    rungs = ladder(cfg.device, None if slowdown > 1 else "bfloat16")
    with phase_progress(console) as progress:
        measurements = measure(config, rungs, cfg.steps, cfg.rounds, cfg.image_files, cfg.workers, progress)
    record = ladder_record(config, measurements, cfg.threads, cfg.workers)
    print_ladder(record, console)
    if cfg.output:
        write_json(Path(cfg.output), record)


if __name__ == "__main__":
    main()
