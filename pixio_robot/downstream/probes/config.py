"""How probes are fitted, as settings: read without torch."""

from typing import Literal

from pixio_robot.common.settings import Count, Text, Whole, settings


@settings(kw_only=True)
class ProbesProtocol:
    """Linear maps fitted in closed form on labelled simulated scenes."""

    families: tuple[Text, ...] = ("lift_panda", "stack_panda", "door_panda", "pick_place_panda")
    """Scene families."""
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
