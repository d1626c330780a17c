"""The one module that imports robosuite: quietly, and with its randomness under a seed."""

import contextlib
import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot_env_pixio.rendering.frames import no_gl_error

if TYPE_CHECKING:
    from robosuite.environments.base import MujocoEnv

# robosuite draws the cube's half-extent (20 to 22 mm) from NumPy's global generator when it builds the model. One fixed
# draw, so that every process simulates the same cube and an episode depends on its reset seed alone.
MODEL_SEED = 0


@contextlib.contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which robosuite draws from, and give the caller's state back afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def import_robosuite() -> ModuleType:
    """Import robosuite without what it prints, the ``MUJOCO_GL`` it sets, and a check of a renderer that is not used here.

    It asserts that the EGL device is one of ``CUDA_VISIBLE_DEVICES``: false on clusters, where a job sees one device, EGL's 0,
    under another number or a UUID of CUDA's.
    """
    chosen_gl, egl_device = os.environ.get("MUJOCO_GL"), os.environ.pop("MUJOCO_EGL_DEVICE_ID", None)
    logger = logging.getLogger("robosuite_logs")
    logger.disabled = True  # it warns of optional packages
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in its docstrings, where no .pyc exists yet
            import robosuite
    except ModuleNotFoundError:
        raise
    except (ImportError, AttributeError, OSError, RuntimeError) as error:  # by MuJoCo and OpenCV without GL
        raise no_gl_error(error) from error
    finally:
        logger.disabled = False
        if egl_device is not None:
            os.environ["MUJOCO_EGL_DEVICE_ID"] = egl_device
        # robosuite asks for EGL whatever MuJoCo uses; processes started from here shall do what this one does.
        if chosen_gl is None:
            os.environ.pop("MUJOCO_GL", None)
        else:
            os.environ["MUJOCO_GL"] = chosen_gl
    logger.setLevel(logging.ERROR)  # robosuite itself sets INFO while it is imported
    return robosuite


def build_simulation(task: str, robot: str, fps: int) -> "MujocoEnv":
    """Build robosuite's environment for a task, without rendering and without robosuite's own observations.

    The arm follows robosuite's default BASIC composite controller with OSC_POSE: the action is a position delta
    (1 is 0.05 m) and a rotation delta (axis-angle, 1 is 0.5 rad) in the base frame, then the gripper (-1 open, 1 close).

    Args:
        task: robosuite's name of the environment.
        robot: robosuite's name of the robot.
        fps: Control rate in Hz.

    Raises:
        ValueError: robosuite or MuJoCo cannot load the machine's OpenGL.
    """
    robosuite = import_robosuite()
    mend_sawyer()
    with numpy_seed(MODEL_SEED):
        simulation = robosuite.make(
            task,
            robots=robot,
            controller_configs=robosuite.load_composite_controller_config(robot=robot),
            control_freq=fps,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            use_object_obs=False,
            renderer="mujoco",  # the other choice opens a viewer while constructing
            ignore_done=True,
            hard_reset=False,  # a reset takes 0.03 s instead of 2 s
        )
    for name in simulation.observation_names:
        simulation.modify_observable(name, "enabled", False)
    from lerobot_env_pixio.simulators.quick_control import (
        quicken_control,  # imports MuJoCo, which robosuite has just loaded
    )

    quicken_control(simulation)
    _drop_spare_copies(simulation)
    return simulation


def mend_sawyer() -> None:
    """Make robosuite's Sawyer one that compiles and moves.

    The visual meshes of its head, which are flat, are declared to be shells: MuJoCo 3.8 refuses a solid without volume. Masses
    and inertias do not come from them: robosuite states those of every body.

    The sphere around its first link touches its pedestal, and MuJoCo lets a link collide with what does not move, its parent or
    not: the contact would brake the first joint with some 19 Nm, more than the controller asks for near its goal. The pedestal
    is made 2 mm lower.
    """
    from robosuite.models.robots import robot_model

    shipped = robot_model.REGISTERED_ROBOTS["Sawyer"]
    if shipped.__module__ == __name__:
        return

    class Sawyer(shipped):  # its metaclass registers it in the shipped one's place
        def __init__(self, idn: int | str = 0) -> None:
            super().__init__(idn=idn)
            for mesh in self.asset.iter("mesh"):
                if "head_" in mesh.get("file", ""):
                    mesh.set("inertia", "shell")
            (pedestal,) = (geom for geom in self.worldbody.iter("geom") if geom.get("name", "").endswith("base_col"))
            pedestal.set("size", "0.08 0.119")
            pedestal.set("pos", "0 0 0.119")


def _drop_spare_copies(simulation: Any) -> None:  # noqa: ANN401 (robosuite declares few of its attributes)
    """Free what is kept of every mesh and texture after the simulation is built: 370 MB for a Panda at a table."""
    import mujoco

    for robot in simulation.robots:
        robot.robot_model.mujoco_model = None  # the robot alone, for inverse kinematics
    mujoco.MjModel.from_xml_string("<mujoco/>")  # MuJoCo keeps the last specification it read
    if hasattr(mujoco, "mj_clearCache"):  # not in the bindings of MuJoCo 3.3
        mujoco.mj_clearCache(mujoco.mj_getCache())
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):  # glibc keeps freed memory until it is asked
        libc.malloc_trim(0)
