"""Camera frames of a MuJoCo simulation.

Shape suffixes: G geoms, S sites, P planes, X the three axes of space.
"""

import atexit
import contextlib
import os
import re
import sys
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lerobot_env_pixio.rendering.profiles import RenderProfile

if TYPE_CHECKING:
    import mujoco

HIDDEN_GROUP = 5  # MuJoCo has geom groups 0 to 5 and draws 0 to 2 unless told otherwise


def choose_gl() -> None:
    """Set ``MUJOCO_GL=egl`` where the user chose nothing and there is no display to open a window on."""
    has_display = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if sys.platform == "linux" and not os.environ.get("MUJOCO_GL") and not has_display:
        os.environ["MUJOCO_GL"] = "egl"


def no_gl_error(cause: Exception) -> ValueError:
    """Return the error that says that no GL context can be made, and what to do about it."""
    device = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    if device is not None and (not device.isdecimal() or "EGL_DEVICE_ID" in str(cause)):
        last = re.search(r"between 0 and (\d+)", str(cause))
        there = f"this machine has EGL devices 0 to {last[1]}" if last else "expected the number of an EGL device"
        return ValueError(
            f"MUJOCO_EGL_DEVICE_ID={device} is no device that can render here: {there}; unset it, or set one of them (EGL "
            f"counts what is visible here, whatever CUDA_VISIBLE_DEVICES says)"
        )
    detail = re.split(r"\.?(?:\s*\n|\. )", str(cause).strip())[0] or type(cause).__name__
    return ValueError(
        f"no usable OpenGL for rendering with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r} ({detail}): "
        "on Debian or Ubuntu run `apt-get install libegl1 libgl1 libgl1-mesa-dri` and set MUJOCO_GL=egl"
    )


@contextlib.contextmanager
def explains_missing_gl() -> Iterator[None]:
    """Say what is missing where dm_control is imported, which loads OpenGL then.

    Raises:
        ValueError: The machine has no usable OpenGL.
    """
    try:
        yield
    except ModuleNotFoundError:
        raise
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise no_gl_error(error) from error


def offscreen_renderer(model: "mujoco.MjModel", image_size: int) -> "mujoco.Renderer":
    """Return MuJoCo's off-screen renderer of square frames, with a GL context of its own.

    Raises:
        ValueError: The machine has no usable OpenGL.
    """
    import mujoco

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GLFW warns of what it then fails with
            renderer = mujoco.Renderer(model, image_size, image_size)
    except Exception as error:  # each GL platform fails with types of its own, of its binding's, or of MuJoCo's
        with contextlib.suppress(AttributeError):
            mujoco.GLContext._context = None  # its destructor reads what a failed constructor did not set
        raise no_gl_error(error) from error
    # Once modules are torn down at exit, MuJoCo's own clean-up prints errors.
    atexit.register(_close_if_alive, weakref.ref(renderer))
    return renderer


def _close_if_alive(renderer: "weakref.ref[mujoco.Renderer]") -> None:
    if (alive := renderer()) is not None:
        alive.close()


@dataclass(frozen=True)
class AddedGeom:
    """A shape that a renderer draws on top of the model's own.

    Attributes:
        shape: Name of a MuJoCo geom type: ``box``, ``sphere``, ``cylinder``, ``ellipsoid``.
        size: Half-extents as MuJoCo reads them for the shape (3,).
        position: Centre (3,).
        yaw: Turn about the vertical axis, radians.
        colour: RGB in [0, 1] (3,).
        shininess: In [0, 1].
    """

    shape: str
    size: np.ndarray
    position: np.ndarray
    yaw: float
    colour: np.ndarray
    shininess: float

    def add_to(self, scene: "mujoco.MjvScene") -> None:
        """Append the shape to what a scene draws until it is updated again; a full scene stays as it is."""
        import mujoco

        if scene.ngeom >= scene.maxgeom:
            return
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        rotation_9 = np.array([cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0])
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{self.shape.upper()}")
        geom = scene.geoms[scene.ngeom]
        rgba_4 = np.append(self.colour, 1.0).astype(np.float32)
        mujoco.mjv_initGeom(geom, kind, self.size, self.position, rotation_9, rgba_4)
        geom.shininess, geom.specular = self.shininess, self.shininess
        scene.ngeom += 1


class CameraRenderer:
    """Renders square frames of named cameras, upright, in one render profile.

    Args:
        model: The model to draw; the profile's settings are written to its visual quality, never to its physics.
        image_size: Height and width of a frame in pixels.
        profile: How to draw.
        visual_groups: Groups of geoms to draw; robosuite keeps collision shapes in group 0 and visual ones in group 1.

    Raises:
        ValueError: The machine has no usable OpenGL.
    """

    def __init__(
        self,
        model: "mujoco.MjModel",
        image_size: int,
        profile: RenderProfile,
        visual_groups: tuple[int, ...] = (1, 2),
    ) -> None:
        import mujoco

        profile.apply_to_model(model, image_size)
        self._renderer = offscreen_renderer(model, image_size)
        profile.apply_to_scene(self._renderer.scene)
        self._model = model
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = [group in visual_groups for group in range(len(self._options.geomgroup))]
        # What lies outside the view can still cast a shadow into it or be mirrored in it.
        self._culls = not (profile.shadows or profile.reflections)
        self.added_geoms: list[AddedGeom] = []

    def frame(self, data: "mujoco.MjData", camera: str) -> np.ndarray:
        """Return what a camera sees, uint8 (image_size, image_size, 3), first row at the top."""
        groups_G, groups_S = self._model.geom_group.copy(), self._model.site_group.copy()
        # robosuite hides its markers by a negative opacity, and MuJoCo draws them all the same, invisibly.
        self._model.site_group[self._model.site_rgba[:, 3] < 0] = HIDDEN_GROUP
        if self._culls:
            # MuJoCo draws every mesh, seen or not, and the vertices are most of what a frame costs in software.
            self._model.geom_group[outside_view(self._model, data, camera)] = HIDDEN_GROUP
        self._renderer.update_scene(data, camera, self._options)
        self._model.geom_group[:], self._model.site_group[:] = groups_G, groups_S
        for geom in self.added_geoms:
            geom.add_to(self._renderer.scene)
        return self._renderer.render()

    def upload_texture(self, texture: int) -> None:
        """Show what now stands in the model's texture of that id."""
        import mujoco

        self._renderer._gl_context.make_current()
        mujoco.mjr_uploadTexture(self._model, self._renderer._mjr_context, texture)

    def close(self) -> None:
        """Free the GL context."""
        self._renderer.close()


def outside_view(model: "mujoco.MjModel", data: "mujoco.MjData", camera: str) -> np.ndarray:
    """Tell which geoms certainly lie outside a camera's square view, bool (G,).

    A geom is outside when its bounding box lies wholly behind the camera or beyond one side of the view pyramid. The
    frame without those geoms is the same to the last bit.
    """
    view_angle = np.deg2rad(model.camera(camera).fovy[0]) / 2.0
    across, ahead = np.cos(view_angle), np.sin(view_angle)
    # Outward normals of the sides and of the plane behind, in the camera's frame: x right, y up, looking along -z.
    outward_PX = np.array(
        [[across, 0, ahead], [-across, 0, ahead], [0, across, ahead], [0, -across, ahead], [0, 0, 1.0]]
    )
    normals_PX = outward_PX @ data.camera(camera).xmat.reshape(3, 3).T

    axes_GXX = data.geom_xmat.reshape(-1, 3, 3)
    box_centres_GX = data.geom_xpos + np.einsum("gij,gj->gi", axes_GXX, model.geom_aabb[:, :3])
    distances_GP = (box_centres_GX - data.camera(camera).xpos) @ normals_PX.T
    reaches_GP = np.einsum("gjp,gj->gp", np.abs(axes_GXX.transpose(0, 2, 1) @ normals_PX.T), model.geom_aabb[:, 3:])
    is_unbounded_G = model.geom_rbound == 0  # planes
    return ~is_unbounded_G & (distances_GP > reaches_GP).any(axis=1)
