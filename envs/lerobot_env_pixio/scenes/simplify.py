"""Coarser visual meshes, in place: rendering time in software goes with the number of faces."""

import mujoco
import numpy as np

from lerobot_env_pixio.scenes.blueprint import VISUAL_GROUP
from lerobot_env_pixio.scenes.model import Scene, SceneClass

LINK_CELL = 0.006  # metres; about a pixel for cameras around the table
GRIPPER_CELL = 0.002  # the wrist camera sees the gripper from a hand's breadth


def _merge_faces(vertices: np.ndarray, faces: np.ndarray, cell: float) -> np.ndarray:
    """Make the vertices in each cell of a grid one, in `faces`, and return which faces (indices) remain."""
    cells = np.floor(vertices / cell).astype(np.int64)
    _, first, cluster = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    merged = first[cluster.ravel()][faces]
    a, b, c = merged.T
    kept = np.flatnonzero((a != b) & (b != c) & (a != c))
    _, unique = np.unique(np.sort(merged[kept], axis=1), axis=0, return_index=True)
    kept = kept[np.sort(unique)]
    faces[kept] = merged[kept]
    return kept


def simplify_meshes(scene: Scene) -> None:
    """Merge the vertices of the robot's visual meshes on a grid of a few millimetres.

    Each corner keeps the normal it had, so shading stays smooth. Call it before the OpenGL context is made,
    which is what reads the faces; physics does not use visual meshes.
    """
    model = scene.model
    for geom in scene.robot_geoms:
        mesh = model.geom_dataid[geom]
        users = (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH) & (model.geom_dataid == mesh)
        if not users[geom] or (model.geom_group[users] != VISUAL_GROUP).any():
            continue
        gripper = scene.classes[geom] == SceneClass.GRIPPER
        vertex, face = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh]
        vertices = model.mesh_vert[vertex : vertex + model.mesh_vertnum[mesh]]
        rows = slice(face, face + model.mesh_facenum[mesh])
        kept = _merge_faces(vertices, model.mesh_face[rows], GRIPPER_CELL if gripper else LINK_CELL)
        for table in (model.mesh_face, model.mesh_facenormal, model.mesh_facetexcoord):
            table[face : face + len(kept)] = table[rows][kept]
        model.mesh_facenum[mesh] = len(kept)
