"""Write an encoder's weights for other people's code: a folder that timm or transformers loads.

uv run scripts/export_encoder.py format=transformers output=pixio_tiny
uv run scripts/export_encoder.py weights=outputs/pretrain_encoder/<run>/encoder.safetensors format=timm output=mine
uv run scripts/export_encoder.py name=pixio_vitb16 weights=<checkpoint>/model.safetensors format=transformers output=finetuned
"""

from typing import Literal

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.settings import Place, Text, settings


@settings(kw_only=True)
class ExportEncoder:
    """Settings of the job."""

    name: Text = "pixio_tiny16"
    """timm name of the encoder."""
    weights: Text = "pretrained"
    """`pretrained` (shipped, or from the hub), or a weights file in any container; of a policy, one that holds its encoder."""
    format: Literal["timm", "transformers"]
    """`timm`: for `timm.create_model("local-dir:…")`; `transformers`: for `AutoModel.from_pretrained`."""
    output: Place
    """The folder to write."""


@entry_point("export_encoder", ExportEncoder)
def main(settings: ExportEncoder) -> None:
    """Write it, load it as its users do, and compare."""
    from pixio_robot.encoders.exporting import export_weights

    difference = export_weights(settings.name, settings.weights, settings.format, settings.output)
    compared = (
        "not compared, because transformers is not installed"
        if difference is None
        else f"what {settings.format} loads differs by {difference:.1e} of the largest feature"
    )
    Console().print(f"{settings.output}: {compared}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
