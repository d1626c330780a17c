"""Scripted demonstrators.

They act on the simulator's state, but every choice of theirs can be made out from a camera frame and the proprioception
of the same instant (no timers, no hidden phases), so that a policy without memory can imitate them.
"""

from lerobot_env_pixio.experts.base import Expert, NoisyExpert
from lerobot_env_pixio.experts.cubes import LiftExpert, StackExpert
from lerobot_env_pixio.experts.door import DoorExpert
from lerobot_env_pixio.experts.placing import NutAssemblySquareExpert, PickPlaceCanExpert

EXPERTS: dict[str, type[NoisyExpert]] = {
    "Lift": LiftExpert,
    "Stack": StackExpert,
    "Door": DoorExpert,
    "PickPlaceCan": PickPlaceCanExpert,
    "NutAssemblySquare": NutAssemblySquareExpert,
}

__all__ = [
    "EXPERTS", "DoorExpert", "Expert", "LiftExpert", "NutAssemblySquareExpert", "PickPlaceCanExpert", "StackExpert",
]  # fmt: skip
