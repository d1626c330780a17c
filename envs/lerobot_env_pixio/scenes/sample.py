"""What is known of a rendered frame: depth, classes, and where things are, seen from the camera.

The camera frame is OpenCV's: x to the right of the image, y down, z forward; metres.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from lerobot_env_pixio.scenes.model import Scene, SceneClass

_FROM_MUJOCO = np.diag([1.0, -1.0, -1.0])  # MuJoCo's cameras have y up and look along -z
_ABSENT_BELOW = -10.0  # metres; an arrangement drops the objects that it leaves out far below the floor


@dataclass(frozen=True)
class SceneSample:
    """A frame with its labels, for probes.

    Attributes:
        frame: uint8 (H, W, 3).
        depth: float32 (H, W), metres along the camera's z axis; inf where there is only sky.
        segmentation: uint8 (H, W), values of `SceneClass`.
        gripper_poses: float64 (A, 4, 4), pose in the camera frame of the site between each arm's fingertips.
        object_positions: float64 (O, 3), place in the camera frame of each movable object of the task, in an order
            that is the same for all frames of a family; nan where the arrangement left the object out.
        focal_length: In pixels; the principal point is the middle of the image.
        pose: float64 (4, 4), from the camera frame to the world.
    """

    frame: np.ndarray
    depth: np.ndarray
    segmentation: np.ndarray
    gripper_poses: np.ndarray
    object_positions: np.ndarray
    focal_length: float
    pose: np.ndarray


def metric_depth(buffer: np.ndarray, near: float, far: float) -> np.ndarray:
    """Turn a depth buffer (1 at the near plane, 0 at the far plane) into metres along the view.

    Args:
        buffer: float32, any shape.
        near: Distance of the near plane in metres.
        far: Distance of the far plane in metres.
    """
    # the inverse of OpenGL's projection, reversed so that far things keep their precision
    return (near * far / (near + buffer.astype(np.float64) * (far - near))).astype(np.float32)


def class_image(scene: Scene, drawn: mujoco.MjvScene, pixels: np.ndarray) -> np.ndarray:
    """Turn an image of MuJoCo's segment colours (H, W, 3) into classes, uint8 (H, W)."""
    segments = pixels.astype(np.int64) @ [1, 256, 65536]  # segment id + 1; 0 is the background
    classes = np.full(drawn.ngeom + 1, SceneClass.BACKGROUND, np.uint8)
    for geom in drawn.geoms[: drawn.ngeom]:
        if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
            classes[geom.segid + 1] = scene.classes[geom.objid]
    return classes[segments]


def _to_camera(scene: Scene) -> np.ndarray:
    return _FROM_MUJOCO @ scene.data.cam_xmat[scene.camera].reshape(3, 3).T


def camera_pose(scene: Scene) -> np.ndarray:
    """Return the pose (4, 4) of the camera in the world."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = _to_camera(scene).T, scene.data.cam_xpos[scene.camera]
    return pose


def gripper_poses(scene: Scene) -> np.ndarray:
    """Return the pose of each arm's grip site in the camera frame (A, 4, 4)."""
    poses, data = np.tile(np.eye(4), (len(scene.arms), 1, 1)), scene.data
    for pose, arm in zip(poses, scene.arms):
        pose[:3, :3] = _to_camera(scene) @ data.site_xmat[arm.site].reshape(3, 3)
        pose[:3, 3] = _to_camera(scene) @ (data.site_xpos[arm.site] - data.cam_xpos[scene.camera])
    return poses


def object_positions(scene: Scene) -> np.ndarray:
    """Return the place of each of the task's objects in the camera frame (O, 3), nan for absent ones."""
    places = np.array([scene.data.xpos[movable.body] for movable in scene.objects]).reshape(-1, 3)
    seen = (places - scene.data.cam_xpos[scene.camera]) @ _to_camera(scene).T
    seen[places[:, 2] < _ABSENT_BELOW] = np.nan
    return seen
