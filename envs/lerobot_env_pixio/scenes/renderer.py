"""Frames of a randomised MuJoCo scene, each a function of seed and index alone."""

import zlib

import mujoco
import numpy as np

from lerobot_env_pixio.rendering.decimation import decimate
from lerobot_env_pixio.rendering.frames import offscreen_renderer, outside_view
from lerobot_env_pixio.scenes.arrangement import arrange
from lerobot_env_pixio.scenes.blueprint import HIDDEN_GROUP, VISUAL_GROUP
from lerobot_env_pixio.scenes.cameras import View, draw_view, shows_the_scene
from lerobot_env_pixio.scenes.families import FAMILIES
from lerobot_env_pixio.scenes.looks import Look, dress, illuminate
from lerobot_env_pixio.scenes.model import FAR, NEAR, Movable, Scene, SceneClass, build_scene
from lerobot_env_pixio.scenes.sample import (
    SceneSample,
    camera_pose,
    class_image,
    gripper_poses,
    metric_depth,
    object_positions,
)
from lerobot_env_pixio.simulators.tasks import look_up

FRAMES_PER_LOOK = 8
FRAMES_PER_ARRANGEMENT = 2
VIEWS_PER_ARRANGEMENT = 10
PLAIN_SHARE = 0.12
_LOOK_STREAM, _FRAME_STREAM, _ARRANGEMENT_STREAM = 0, 1, 2  # keep their random numbers apart


def is_worth_seeing(frame: np.ndarray) -> bool:
    """Tell a picture of something from a black, burnt-out or featureless one.

    Args:
        frame: uint8 (H, W, 3).
    """
    grey = frame.mean(axis=2, dtype=np.float32)
    mean = grey.mean()
    edges = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    return bool(
        mean > 12
        and grey.std() > max(3.0, 0.1 * mean)
        and edges > max(0.8, 0.01 * mean)
        and (mean < 60 or (frame.min(axis=2) >= 250).mean() < 0.25)
    )


def _simplify_meshes(scene: Scene) -> None:
    """Reduce the robot's meshes that are drawn, those that collide in a simulation, too: scenes are never simulated.

    Call it before the OpenGL context is made, which is what reads the faces.
    """
    model = scene.model
    is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    robot = np.intersect1d(np.flatnonzero(is_mesh), scene.robot_geoms)
    hidden = model.geom_dataid[is_mesh & (model.geom_group != VISUAL_GROUP)]
    decimate(model, np.setdiff1d(model.geom_dataid[robot], hidden))


class SceneRenderer:
    """Renders frames of one MuJoCo scene family; owns an OpenGL context until `close`.

    Textures and colours last `FRAMES_PER_LOOK` frames and an arrangement of robot and objects lasts
    `FRAMES_PER_ARRANGEMENT`; lights and camera change every frame.
    A frame depends on the family, the seed and its index only.
    """

    def __init__(self, family: str, image_size: int, seed: int) -> None:
        """Compile the family's scene and open an off-screen OpenGL context.

        Args:
            family: A key of `FAMILIES`, of a simulator that runs on MuJoCo.
            image_size: Side of the square frames in pixels.
            seed: Seed of all randomness.

        Raises:
            ValueError: When the family is unknown, or the machine has no usable OpenGL.
        """
        self._seed = [seed, zlib.crc32(family.encode())]  # families do not share their choices
        self._scene = build_scene(look_up("scene family", family, FAMILIES))
        _simplify_meshes(self._scene)
        model = self._scene.model
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 1024
        model.vis.global_.offwidth = model.vis.global_.offheight = image_size
        self._renderer = offscreen_renderer(model, image_size)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[VISUAL_GROUP] = 1
        self._options.sitegroup[:] = 0
        self._look_index = self._arrangement_index = -1
        self._look = Look((), True, False)
        self._objects: list[Movable] = []

    def frame(self, index: int) -> np.ndarray:
        """Return frame `index`, uint8 (image_size, image_size, 3), upright; consecutive ones share the cost of a look."""
        self._renderer._gl_context.make_current()  # another renderer of this process may have taken its place
        if index // FRAMES_PER_LOOK != self._look_index:
            self._change_look(index // FRAMES_PER_LOOK)
        if index // FRAMES_PER_ARRANGEMENT != self._arrangement_index:
            self._arrangement_index = index // FRAMES_PER_ARRANGEMENT
            self._arrange(np.random.default_rng([*self._seed, _ARRANGEMENT_STREAM, self._arrangement_index]))
        rng = np.random.default_rng([*self._seed, _FRAME_STREAM, index])
        while True:
            for _ in range(3):
                frame = self._attempt(rng)
                if frame is not None and is_worth_seeing(frame):
                    return frame
            self._arrange(rng)
            self._arrangement_index = -1  # the next frame must not depend on this one's bad luck

    def sample(self, index: int) -> SceneSample:
        """Return frame `index` with its labels; see `SceneSample` for units and the camera's axes."""
        return self._labelled(self.frame(index))

    def _labelled(self, frame: np.ndarray) -> SceneSample:
        """Return the frame that was drawn last with its labels."""
        scene = self._scene
        pixels, depth = np.zeros_like(frame), np.zeros(frame.shape[:2], np.float32)
        drawn, area, context = self._renderer.scene, self._renderer._rect, self._renderer._mjr_context
        segmented = (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR)
        for flag in segmented:
            drawn.flags[flag] = True
        mujoco.mjr_render(area, drawn, context)
        mujoco.mjr_readPixels(pixels, depth, area, context)
        for flag in segmented:
            drawn.flags[flag] = False
        segmentation = class_image(scene, drawn, pixels[::-1])
        metres = metric_depth(depth[::-1], NEAR, FAR)
        half_view = np.radians(scene.model.cam_fovy[scene.camera]) / 2
        return SceneSample(
            frame=frame,
            depth=np.where(segmentation == SceneClass.BACKGROUND, np.float32(np.inf), metres),
            segmentation=segmentation,
            gripper_poses=gripper_poses(scene),
            object_positions=object_positions(scene),
            focal_length=float(len(frame) / 2 / np.tan(half_view)),
            pose=camera_pose(scene),
        )

    def close(self) -> None:
        """Give the OpenGL context back."""
        self._renderer._gl_context.make_current()
        self._renderer.close()

    def _change_look(self, look_index: int) -> None:
        rng = np.random.default_rng([*self._seed, _LOOK_STREAM, look_index])
        self._look = dress(self._scene, rng, plain=bool(self._scene.is_a_task and rng.random() < PLAIN_SHARE))
        self._look_index, self._arrangement_index = look_index, -1
        for texture in self._look.textures:
            mujoco.mjr_uploadTexture(self._scene.model, self._renderer._mjr_context, texture)

    def _arrange(self, rng: np.random.Generator) -> None:
        scene = self._scene
        self._objects = arrange(scene, rng, self._look.plain)
        mujoco.mj_comPos(scene.model, scene.data)

    def _attempt(self, rng: np.random.Generator) -> np.ndarray | None:
        """Draw lights and a camera and return what it sees, or None when no camera of many is on the scene."""
        scene, plain = self._scene, self._look.plain
        illuminate(scene, rng, bool(plain and rng.random() < 0.75))
        mujoco.mj_camlight(scene.model, scene.data)
        for _ in range(VIEWS_PER_ARRANGEMENT):
            view = draw_view(scene, rng, plain)
            if shows_the_scene(scene, view, self._objects, rng):
                self._look_through(view)
                return self._draw()
        return None

    def _look_through(self, view: View) -> None:
        scene = self._scene
        scene.data.cam_xpos[scene.camera] = view.position
        scene.data.cam_xmat[scene.camera] = view.rotation.ravel()
        scene.model.cam_fovy[scene.camera] = np.clip(view.fovy, 20, 100)

    def _draw(self) -> np.ndarray:
        scene = self._scene
        groups = scene.model.geom_group.copy()
        if not self._look.shadows:  # what is out of view could still cast a shadow into it
            scene.model.geom_group[outside_view(scene.model, scene.data, "pixio_camera")] = HIDDEN_GROUP
        self._renderer.update_scene(scene.data, scene.camera, self._options)
        scene.model.geom_group[:] = groups
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = self._look.shadows
        return self._renderer.render()
