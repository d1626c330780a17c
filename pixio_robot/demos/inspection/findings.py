"""What an inspection of a demonstration store reports."""

from dataclasses import dataclass

# Kinds of findings, the worst first.
DAMAGED, NON_FINITE, FROZEN_CAMERA, JUMP, WRONG_FPS, IDLE = KINDS = (
    "damaged",
    "non_finite",
    "frozen_camera",
    "jump",
    "wrong_fps",
    "idle",
)


@dataclass(frozen=True)
class Finding:
    """Something worth a look; everything but idle stretches may be damage.

    Attributes:
        kind: One of `KINDS`.
        sentence: What was found and where.
        key: The feature, if it is about one.
        episode: The episode, if it is about one.
        steps: First and last step within the episode, if it is about some.
    """

    kind: str
    sentence: str
    key: str | None = None
    episode: int | None = None
    steps: tuple[int, int] | None = None


def place(episode: int, first: int, last: int) -> str:
    """Begin a sentence with where in a store something is."""
    return f"Episode {episode}, " + (f"step {first}" if first == last else f"steps {first} to {last}")
