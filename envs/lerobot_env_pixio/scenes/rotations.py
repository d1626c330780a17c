"""Small rotations and rotation matrices drawn at random."""

import numpy as np
from scipy.spatial.transform import Rotation


def about_z(angle: float) -> np.ndarray:
    """Return the rotation matrix (3, 3) about the vertical by an angle in radians."""
    return Rotation.from_rotvec([0.0, 0.0, angle]).as_matrix()


def small_rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """Return a rotation about a random axis by a normally distributed angle of that standard deviation."""
    axis = rng.normal(size=3)
    return Rotation.from_rotvec(np.radians(degrees) * rng.normal() * axis / np.linalg.norm(axis)).as_matrix()


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a uniformly distributed rotation matrix (3, 3)."""
    return Rotation.from_quat(rng.normal(size=4), scalar_first=True).as_matrix()


def quaternion_of(matrix: np.ndarray) -> np.ndarray:
    """Return the quaternion (4,), wxyz, of a rotation matrix (3, 3)."""
    return Rotation.from_matrix(matrix).as_quat(scalar_first=True)
