"""A LeRobotDataset as `lerobot-record` leaves one: frames of 480×640 px at 30 fps of an arm with named joints."""

from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

JOINTS = [
    f"{name}.pos" for name in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
]
FPS, HEIGHT, WIDTH = 30, 480, 640
FRONT = "observation.images.front"


def record_dataset(root: Path, episodes: int = 6, steps: int = 60, video: bool = True) -> None:
    """Record an arm that moves from rest to a square that stands elsewhere in every episode, in degrees and per cent.

    Args:
        root: Folder of the dataset.
        episodes: How many.
        steps: Steps of each, and one more for each episode before it.
        video: Whether frames are a video, as `lerobot-record` writes them, or pictures.
    """
    motors = {"dtype": "float32", "shape": (len(JOINTS),), "names": JOINTS}
    frame = {"dtype": "video" if video else "image", "shape": (HEIGHT, WIDTH, 3)}
    dataset = LeRobotDataset.create(
        "local/reach",
        FPS,
        {"observation.state": motors, "action": motors, FRONT: {**frame, "names": ["height", "width", "channels"]}},
        root=root,
        robot_type="so101_follower",
        use_videos=video,
    )
    generator = np.random.default_rng(0)
    for episode in range(episodes):
        goal = generator.uniform(-40, 40, len(JOINTS)) * [1, 1, 1, 1, 1, 0.5] + [0, 0, 0, 0, 0, 50]
        rest = np.array([0.0, -20.0, 30.0, 0.0, 0.0, 10.0])
        length = steps + episode
        way = (1 - np.cos(np.pi * np.linspace(0, 1, length + 1))) / 2
        places = rest + way[:, None] * (goal - rest)
        row, column = (int(HEIGHT / 2 + 4 * goal[1]), int(WIDTH / 2 + 5 * goal[0]))
        for step in range(length):
            picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            picture[row - 25 : row + 25, column - 25 : column + 25] = (200, 40, 40)
            hand = int(HEIGHT / 2 + 4 * places[step, 1]), int(WIDTH / 2 + 5 * places[step, 0])
            picture[hand[0] - 10 : hand[0] + 10, hand[1] - 10 : hand[1] + 10] = (40, 40, 220)
            dataset.add_frame(
                {
                    "observation.state": places[step].astype(np.float32),
                    "action": places[step + 1].astype(np.float32),
                    FRONT: picture,
                    "task": "reach the square",
                }
            )
        dataset.save_episode()
    dataset.finalize()
