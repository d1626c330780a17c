"""Random cameras: the task's own with jitter, free ones around the workspace, close-ups of the gripper."""

from dataclasses import dataclass

import numpy as np

from lerobot_env_pixio.scenes.arrangement import about_z, small_rotation
from lerobot_env_pixio.scenes.model import Movable, Scene
from lerobot_env_pixio.scenes.stock import ROOM


@dataclass(frozen=True)
class View:
    """A camera: place (3,), rotation (3, 3; x right, y up, looking along -z), vertical field of view (°)."""

    position: np.ndarray
    rotation: np.ndarray
    fovy: float


def look_at(position: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """Return the rotation of a camera at a place that looks at a target, rolled by radians about its axis."""
    backward = position - target
    backward /= np.linalg.norm(backward)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right) + 1e-9
    upright = np.stack([right, np.cross(backward, right), backward], axis=1)
    return upright @ about_z(roll)


def _task_view(scene: Scene, camera: int, shift: float, degrees: float, rng: np.random.Generator) -> View:
    """One of the model's cameras, moved by a normally distributed shift (metres) and turn (degrees)."""
    return View(
        scene.data.cam_xpos[camera] + rng.normal(0, shift, 3),
        small_rotation(rng, degrees) @ scene.data.cam_xmat[camera].reshape(3, 3),
        float(scene.model.cam_fovy[camera] + rng.normal(0, degrees)),
    )


def _upright(view: View) -> View:
    """Turn a view half about its axis if it stands on its head, as Meta-World's corner cameras do."""
    return View(view.position, view.rotation @ about_z(np.pi), view.fovy) if view.rotation[2, 1] < -0.1 else view


def _around(scene: Scene, view: View, rng: np.random.Generator) -> View:
    """Turn a view about the vertical through the workspace."""
    turn = about_z(np.radians(rng.uniform(-30, 30)))
    return View(scene.focus + turn @ (view.position - scene.focus), turn @ view.rotation, view.fovy)


def _orbit(target: np.ndarray, distance: float, rng: np.random.Generator) -> View:
    bearing = rng.uniform(-np.pi, np.pi)
    elevation = np.radians(rng.choice([rng.uniform(5, 30), rng.uniform(20, 60), rng.uniform(50, 88)]))
    away = np.array([np.cos(bearing) * np.cos(elevation), np.sin(bearing) * np.cos(elevation), np.sin(elevation)])
    position = target + distance * away
    roll = rng.choice([0.0, rng.normal(0, 0.15), rng.uniform(-np.pi, np.pi)], p=[0.6, 0.3, 0.1])
    return View(position, look_at(position, target, roll), float(rng.uniform(30, 75)))


def draw_view(scene: Scene, rng: np.random.Generator, plain: bool) -> View:
    """Draw a camera for the scene's present arrangement.

    Args:
        scene: The scene, its kinematics up to date.
        rng: Source of every choice.
        plain: Keep to the task's own cameras, hardly moved.
    """
    kind = rng.choice(["usual", "wrist", "other", "orbit", "close"], p=[0.25, 0.23, 0.06, 0.28, 0.18])
    if plain:
        kind = rng.choice(["usual", "wrist"])
    if kind == "wrist" and not scene.wrist_cameras:
        kind = "usual" if plain else rng.choice(["usual", "orbit", "close"])
    still, shaken, moved = (0.0, 0.0), (0.02, 2.0), (0.08, 5.0)
    amount = (still, shaken)[rng.integers(2)] if plain else (still, shaken, moved)[rng.choice(3, p=[0.15, 0.35, 0.5])]
    match kind:
        case "wrist":
            camera = scene.wrist_cameras[rng.integers(len(scene.wrist_cameras))]
            return _task_view(scene, camera, 0.25 * amount[0], 1.8 * amount[1], rng)
        case "usual" | "other":
            cameras = scene.usual_cameras if kind == "usual" else scene.other_cameras
            view = _upright(_task_view(scene, cameras[rng.integers(len(cameras))], *amount, rng))
            return _around(scene, view, rng) if amount is moved and rng.random() < 0.5 else view
        case "orbit":
            return _orbit(scene.focus + scene.scale * rng.normal(0, 0.1, 3), scene.scale * rng.uniform(0.5, 1.6), rng)
        case _:
            centre = scene.focus + np.append(rng.uniform(-0.6, 0.6, 2) * scene.surfaces[0].half, 0.0)
            if scene.arms:
                centre = scene.data.site_xpos[scene.arms[rng.integers(len(scene.arms))].site]
            return _orbit(centre + scene.scale * rng.normal(0, 0.04, 3), scene.scale * rng.uniform(0.18, 0.6), rng)


def in_view(view: View, points: np.ndarray) -> np.ndarray:
    """Return which points (N, 3) a square image of the view shows (occlusion aside), as bool (N,)."""
    local = (points - view.position) @ view.rotation
    limit = np.tan(np.radians(view.fovy) / 2) * -local[:, 2] * 0.92
    return (local[:, 2] < -0.02) & (np.abs(local[:, 0]) < limit) & (np.abs(local[:, 1]) < limit)


def shows_the_scene(scene: Scene, view: View, objects: list[Movable], rng: np.random.Generator) -> bool:
    """Judge from geometry whether a view is worth rendering: outside the robot, and on the workspace."""
    wrists = scene.data.cam_xpos[list(scene.wrist_cameras)].reshape(-1, 3)
    if len(scene.robot_bodies) and (np.linalg.norm(wrists - view.position, axis=1) > 0.06).all():
        links = scene.data.xipos[scene.robot_bodies]
        if np.linalg.norm(links - view.position, axis=1).min() < 0.14:
            return False
    if (np.abs(view.position - scene.focus)[:2] > 0.95 * ROOM).any():
        return False
    if view.position[2] < min(s.centre[2] for s in scene.surfaces) + 0.02:
        return False
    corners = np.array([[x, y, 0.0] for x in (-0.5, 0.0, 0.5) for y in (-0.5, 0.0, 0.5)])
    table = np.concatenate([s.centre + corners * [*s.half, 1.0] for s in scene.surfaces])
    things = np.array([scene.data.xpos[m.body] for m in objects]).reshape(-1, 3)
    if len(things) and rng.random() < 0.85:
        return bool(in_view(view, things).any())
    return bool(in_view(view, np.concatenate([table, scene.focus[None]])).sum() >= 2)
