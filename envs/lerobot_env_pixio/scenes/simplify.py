"""Coarser visual meshes of the robot: rendering time in software goes with the number of faces."""

import mujoco
import numpy as np

from lerobot_env_pixio.rendering.decimation import decimate
from lerobot_env_pixio.scenes.blueprint import VISUAL_GROUP
from lerobot_env_pixio.scenes.model import Scene


def simplify_meshes(scene: Scene) -> None:
    """Reduce the robot's meshes that are drawn, those that collide in a simulation, too: scenes are never simulated.

    Call it before the OpenGL context is made, which is what reads the faces.
    """
    model = scene.model
    is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    robot = np.intersect1d(np.flatnonzero(is_mesh), scene.robot_geoms)
    hidden = model.geom_dataid[is_mesh & (model.geom_group != VISUAL_GROUP)]
    decimate(model, np.setdiff1d(model.geom_dataid[robot], hidden))
