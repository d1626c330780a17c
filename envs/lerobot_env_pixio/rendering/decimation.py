"""Visual meshes with fewer faces, in place in a compiled model: in software, a frame's time goes with its faces.

Only the tables of faces change, to index fewer of the vertices that are there. MuJoCo's dynamics never read those of a
mesh that nothing collides with: inertia, bounding boxes and collision hulls were computed when the model was compiled.

Shape suffixes: F faces, V vertices of the mesh, W places where vertices stand, K kept faces, C pairs of a kept face's
corner and an original corner at the same place.
"""

import contextlib
import hashlib
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import platformdirs

if TYPE_CHECKING:
    import mujoco

KEPT_SHARE = 0.1  # of a mesh's faces; a 128 px camera cannot tell by the silhouette
MIN_FACES = 250  # small parts keep what makes them look round

# Faces of some meshes touch without sharing corners, so that collapsing edges would tear them apart: where so many edges
# are borders, vertices are merged on a grid instead.
_MOST_BORDERS = 0.1  # of all edges
_MERGING_CELLS = (0.02, 0.03)  # of the mesh's extent, tried in turn; with wider ones shapes change visibly

type _Mesh = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
_FACE_TABLES = ("mesh_face", "mesh_facenormal", "mesh_facetexcoord")
_CACHE_FORMAT = 2  # raise it when the same mesh should come out differently


def decimate_visual_meshes(model: "mujoco.MjModel") -> None:
    """Reduce every mesh that is only looked at, see `decimate`: nothing that is simulated changes."""
    decimate(model, np.flatnonzero(_only_looked_at(model)))


def decimate(model: "mujoco.MjModel", meshes: np.ndarray) -> None:
    """Reduce meshes to a tenth of their faces.

    Call it before a GL context is made for the model, which is what reads the faces. The new faces are kept in the
    user's cache folder.

    Args:
        model: The compiled model, whose tables of faces are changed; running it again reduces nothing further.
        meshes: Ids of the meshes.
    """
    for mesh in meshes:
        start, n_faces = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        # What the compiler made room for: a mesh that was reduced before has fewer faces than that.
        room = (model.mesh_faceadr[mesh + 1] if mesh + 1 < model.nmesh else model.nmeshface) - start
        target = max(MIN_FACES, round(KEPT_SHARE * n_faces))
        if n_faces < room or target >= n_faces:
            continue
        kept_K3T = _cached_faces(_mesh_arrays(model, int(mesh)), target)
        for table, faces in zip(_FACE_TABLES, np.moveaxis(kept_K3T, -1, 0), strict=True):
            getattr(model, table)[start : start + len(faces)] = faces
        model.mesh_facenum[mesh] = len(kept_K3T)


def _only_looked_at(model: "mujoco.MjModel") -> np.ndarray:
    """Tell which meshes neither collide nor are measured, bool (meshes,)."""
    import mujoco

    is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    touches = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    touches[model.pair_geom1] = touches[model.pair_geom2] = True
    is_visual = np.zeros(model.nmesh, bool)
    is_visual[model.geom_dataid[is_mesh & ~touches]] = True
    is_visual[model.geom_dataid[is_mesh & touches]] = False
    measuring = [kind for name, kind in vars(mujoco.mjtSensor).items() if name in _MEASURING_SENSORS]
    return is_visual & ~np.isin(model.sensor_type, measuring).any()


# These cast rays at faces, or measure distances between geoms whether they collide or not.
_MEASURING_SENSORS = ("mjSENS_RANGEFINDER", "mjSENS_GEOMDIST", "mjSENS_GEOMNORMAL", "mjSENS_GEOMFROMTO")


def _mesh_arrays(model: "mujoco.MjModel", mesh: int) -> _Mesh:
    """Return a mesh's vertices (V, 3), normals, texture coordinates (or none) and corners (F, 3, 3 tables)."""
    import mujoco

    def rows(table: str, start: np.ndarray, number: np.ndarray) -> np.ndarray:
        return getattr(model, table)[start[mesh] : start[mesh] + number[mesh]] if start[mesh] >= 0 else np.zeros((0, 2))

    users = (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH) & (model.geom_dataid == mesh)
    materials = model.geom_matid[users]
    is_textured = (model.mat_texid[materials[materials >= 0]] >= 0).any()
    texcoords = rows("mesh_texcoord", model.mesh_texcoordadr, model.mesh_texcoordnum)
    corners = [rows(table, model.mesh_faceadr, model.mesh_facenum) for table in _FACE_TABLES]
    return (
        rows("mesh_vert", model.mesh_vertadr, model.mesh_vertnum),
        rows("mesh_normal", model.mesh_normaladr, model.mesh_normalnum),
        texcoords if is_textured else texcoords[:0],
        np.stack(corners, axis=-1),
    )


def _cached_faces(mesh: _Mesh, target: int) -> np.ndarray:
    """Return `_fewer_faces`, read from the user's cache folder or written there."""
    digest = hashlib.sha256(f"{_CACHE_FORMAT} {version('fast-simplification')} {target}".encode())
    for array in mesh:
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array))
    path = platformdirs.user_cache_path("lerobot_env_pixio") / "meshes" / f"{digest.hexdigest()[:32]}.npy"
    try:
        faces = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # absent, or not what was written
        faces = None
    if faces is None or not _is_made_of(faces, mesh[3]):
        faces = _fewer_faces(*mesh, target)
        _write(path, faces)
    return faces


def _is_made_of(faces: np.ndarray, corners_F3T: np.ndarray) -> bool:
    """Tell whether every index is within the range that the mesh uses: what OpenGL reads unchecked."""
    return (
        faces.ndim == 3
        and faces.shape[1:] == corners_F3T.shape[1:]
        and faces.dtype == corners_F3T.dtype
        and 0 < len(faces) <= len(corners_F3T)
        and (faces >= corners_F3T.min((0, 1))).all()
        and (faces <= corners_F3T.max((0, 1))).all()
    )


def _write(path: Path, faces: np.ndarray) -> None:
    """Write the file at once or not at all; a cache that cannot be written is no cache."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True) as folder:
            unfinished = Path(folder) / path.name
            np.save(unfinished, faces, allow_pickle=False)
            unfinished.replace(path)


def _fewer_faces(
    vertices_V3: np.ndarray, normals: np.ndarray, texcoords: np.ndarray, corners_F3T: np.ndarray, target: int
) -> np.ndarray:
    """Reduce a mesh by quadric edge collapses to about `target` faces, or an open one by merging on a grid.

    Each corner that remains is one that the mesh had: of those at its place, the one whose normal fits the new face
    best, so that smooth parts stay smooth and edges sharp.

    Args:
        vertices_V3: Vertices, metres.
        normals: Unit normals that corners refer to.
        texcoords: Texture coordinates, where the mesh shows a texture; else of length 0.
        corners_F3T: Index of vertex, normal and texture coordinate (T) for each corner of each face.
        target: Faces to aim at.

    Returns:
        The kept faces, (K, 3, T).
    """
    import fast_simplification
    from scipy.spatial import KDTree

    # Exporters give each face vertices of its own; collapsing needs to know which are one.
    vertex_of_corner = corners_F3T[..., 0].ravel()
    keys = vertices_V3[vertex_of_corner]
    if len(texcoords):
        keys = np.concatenate([keys, texcoords[corners_F3T[..., 2].ravel()]], axis=1)
    faces_F3, vertex_W = _welded(keys, vertex_of_corner)
    if not len(texcoords) and _share_of_borders(faces_F3) > _MOST_BORDERS:
        for cell in _MERGING_CELLS:
            cells = np.floor(vertices_V3[vertex_of_corner] / (cell * np.ptp(vertices_V3, axis=0).max()))
            faces_F3, vertex_W = _welded(cells, vertex_of_corner)
            faces_K3 = _proper(faces_F3)
            faces_K3 = faces_K3[np.unique(np.sort(faces_K3, axis=1), axis=0, return_index=True)[1]]
            if len(faces_K3) <= target:
                break
        places_W3 = vertices_V3[vertex_W].astype(np.float64)
    else:
        places_W3 = vertices_V3[vertex_W].astype(np.float64)
        points, faces_K3 = fast_simplification.simplify(
            places_W3,
            _proper(faces_F3).astype(np.int32),
            target_count=target,
            preserve_border=len(texcoords) > 0,  # or seams of the texture would open
        )[:2]
        used = np.unique(faces_K3)
        nearest = np.zeros(len(points), int)
        nearest[used] = KDTree(places_W3).query(points[used])[1]
        faces_K3 = _proper(nearest[faces_K3])
    chosen = _best_corners(places_W3, faces_F3, faces_K3, normals[corners_F3T[..., 1]].reshape(-1, 3))
    kept_K3T = corners_F3T.reshape(-1, corners_F3T.shape[-1])[chosen]
    kept_K3T[..., 0] = vertex_W[faces_K3]
    return kept_K3T


def _welded(keys: np.ndarray, vertex_of_corner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make corners of the same key one place: return the faces' places (F, 3) and a vertex of each place (W,)."""
    _, first, place_of_corner = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return place_of_corner.reshape(-1, 3), vertex_of_corner[first]


def _proper(faces_F3: np.ndarray) -> np.ndarray:
    """Leave out faces without area."""
    a, b, c = faces_F3.T
    return faces_F3[(a != b) & (b != c) & (a != c)]


def _share_of_borders(faces_F3: np.ndarray) -> float:
    """Return how many of a mesh's edges belong to one face alone."""
    faces_F3 = _proper(faces_F3)
    edges = np.sort(np.concatenate([faces_F3[:, [0, 1]], faces_F3[:, [1, 2]], faces_F3[:, [2, 0]]]), axis=1)
    return float((np.unique(edges, axis=0, return_counts=True)[1] == 1).mean())


def _best_corners(
    places_W3: np.ndarray, faces_F3: np.ndarray, faces_K3: np.ndarray, corner_normals: np.ndarray
) -> np.ndarray:
    """Choose for each corner of the new faces an original corner, int (K, 3) into the flattened original ones."""
    a, b, c = (places_W3[faces_K3[:, corner]] for corner in range(3))
    face_normals_K3 = np.cross(b - a, c - a)
    order = np.argsort(faces_F3, axis=None, kind="stable")
    n_at_place_W = np.bincount(faces_F3.ravel(), minlength=len(places_W3))
    first_W = np.cumsum(n_at_place_W) - n_at_place_W
    wanted = faces_K3.ravel()
    n_C = n_at_place_W[wanted]
    new_C = np.repeat(np.arange(len(wanted)), n_C)
    within_C = np.arange(len(new_C)) - np.repeat(np.cumsum(n_C) - n_C, n_C)
    original_C = order[first_W[wanted][new_C] + within_C]
    fit_C = np.einsum("cx,cx->c", corner_normals[original_C], face_normals_K3[new_C // 3])
    best_first = np.lexsort((-fit_C, new_C))
    return original_C[best_first[np.cumsum(n_C) - n_C]].reshape(-1, 3)
