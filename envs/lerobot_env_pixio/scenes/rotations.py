"""Small rotations and rotation matrices drawn at random."""

import mujoco
import numpy as np


def axis_angle(axis: np.ndarray, angle: float) -> np.ndarray:
    """Return the rotation matrix (3, 3) about an axis by an angle in radians."""
    quaternion, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_axisAngle2Quat(quaternion, axis / np.linalg.norm(axis), angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def about_z(angle: float) -> np.ndarray:
    """Return the rotation matrix (3, 3) about the vertical by an angle in radians."""
    return axis_angle(np.array([0.0, 0.0, 1.0]), angle)


def small_rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """Return a rotation about a random axis by a normally distributed angle of that standard deviation."""
    return axis_angle(rng.normal(size=3), np.radians(degrees) * rng.normal())


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a uniformly distributed rotation matrix (3, 3)."""
    quaternion, matrix = rng.normal(size=4), np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion / np.linalg.norm(quaternion))
    return matrix.reshape(3, 3)


def quaternion_of(matrix: np.ndarray) -> np.ndarray:
    """Return the quaternion (4,), wxyz, of a rotation matrix (3, 3)."""
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, matrix.flatten())
    return quaternion
