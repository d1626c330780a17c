"""Compute what GPU memory the pretraining of each Pixio variant needs, and how many images fit, by the paper's recipe.

uv run scripts/benchmarks/benchmark_hardware.py
uv run scripts/benchmarks/benchmark_hardware.py gpu_gib=141 'gpus=[1,8]'
uv run scripts/benchmarks/benchmark_hardware.py image_size=128 mask_block=2 decoder_dim=128 decoder_depth=8 decoder_heads=4

Nothing runs on a GPU: passes are counted on tensors without values; pretraining_speed/hardware.py says what is counted.
"""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Count, Positive, settings


@settings
class BenchmarkHardware:
    """Settings of the job."""

    gpu_gib: Positive = 80
    """Memory of one GPU in GiB."""
    gpus: tuple[Count, ...] = (1, 8, 64)
    """How many share the model (FSDP)."""
    image_size: Count = 256
    """Side of the crops in pixels."""
    mask_block: Count = 4
    """Side of a mask block in patches; three patches in four are masked."""
    decoder_dim: Count = 512
    """Decoder width."""
    decoder_depth: Count = 32
    """Decoder blocks."""
    decoder_heads: Count = 16
    """Decoder attention heads."""


@entry_point("benchmark_hardware", BenchmarkHardware, configs=Path(__file__).parent / "configs")
def main(settings: BenchmarkHardware) -> None:
    """Compute and print the table."""
    from pretraining_speed.hardware import BYTES_PER_PARAMETER, GIB, needs

    from pixio_robot.encoders import PIXIO_VARIANTS

    memory, decoder = settings.gpu_gib * GIB, (settings.decoder_dim, settings.decoder_depth, settings.decoder_heads)
    table = Table("variant", "parameters (M)", "state (GiB)", "per image (MiB)", "checkpointed (MiB)", box=None)
    for count in settings.gpus:
        table.add_column(f"images on each of {count}")
    for variant in PIXIO_VARIANTS:
        need = needs(variant, settings.image_size, decoder, 0.75, settings.mask_block)
        table.add_row(
            variant,
            f"{need.parameters / 1e6:.1f}",
            f"{BYTES_PER_PARAMETER * need.parameters / GIB:.1f}",
            f"{need.whole.per_image / 2**20:.1f}",
            f"{need.checkpointed.per_image / 2**20:.1f}",
            *(f"{need.images(count, memory, False)} / {need.images(count, memory, True)}" for count in settings.gpus),
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
