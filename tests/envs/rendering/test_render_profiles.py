"""Render profiles change what is drawn and nothing that is simulated; `lite` draws the same robot from fewer faces."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import mujoco
import numpy as np
import pytest
from lerobot_env_pixio import RobosuiteEnvConfig
from lerobot_env_pixio.rendering.decimation import decimate_visual_meshes
from lerobot_env_pixio.rendering.profiles import RENDER_PROFILES
from lerobot_env_pixio.simulators.robosuite import RobosuiteEnv

CAMERAS = ["agentview", "robot0_eye_in_hand", "frontview"]


@pytest.fixture(scope="module")
def envs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RobosuiteEnv]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        envs = {
            name: RobosuiteEnvConfig(camera_names=CAMERAS, render_profile=name).make_env() for name in RENDER_PROFILES
        }
        for env in envs.values():
            env.reset(seed=0)
        yield envs
        for env in envs.values():
            env.close()


def play(env: RobosuiteEnv) -> tuple[np.ndarray, np.ndarray]:
    """Return everything that MuJoCo integrates, (steps, numbers), and some frames, (frames, cameras, H, W, 3)."""
    env.reset(seed=5)
    reach = np.array([0.0, 0.0, -1.0, 0.0, 0.0, 0.3, -1.0], np.float32)  # down to the table, and into contact with it
    states, frames = [], []
    size = mujoco.mj_stateSize(env.model, mujoco.mjtState.mjSTATE_INTEGRATION)
    for step in range(40):
        env.render_observations = step % 10 == 9
        observation, *_ = env.step(reach)
        state = np.zeros(size)
        mujoco.mj_getState(env.model, env.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        states.append(np.concatenate([state, env.data.qfrc_constraint, [env.data.ncon]]))
        if env.render_observations:
            frames.append(np.stack(list(observation["pixels"].values())))
    env.render_observations = True
    return np.stack(states), np.stack(frames)


def test_profiles_share_physics_and_differ_in_looks(envs: dict[str, RobosuiteEnv]) -> None:
    states, frames = zip(*(play(env) for env in envs.values()), strict=True)
    assert len(set(states[0][:, -1])) > 1, "contacts never changed: too easy a test"
    for other in states[1:]:
        np.testing.assert_array_equal(states[0], other)
    standard, fast, lite = (array.astype(float) for array in frames)
    assert np.abs(standard - fast).mean() < 25  # the same scene none the less
    assert 0 < np.abs(fast - lite).mean() < 3


def test_lite_draws_few_faces_in_the_same_places(envs: dict[str, RobosuiteEnv]) -> None:
    drawn, seen = {}, {}
    for name in ("fast", "lite"):
        env = envs[name]
        model = env.model
        shown = (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH) & (model.geom_group == 1)
        drawn[name] = model.mesh_facenum[model.geom_dataid[shown]].sum()
        with mujoco.Renderer(model, 128, 128) as renderer:
            renderer.enable_segmentation_rendering()
            options = mujoco.MjvOption()
            options.geomgroup[0] = 0
            env.reset(seed=0)
            for camera in CAMERAS:
                renderer.update_scene(env.data, camera, options)
                ids = renderer.render()[..., 0]
                seen[name, camera] = np.isin(ids, np.flatnonzero(shown))
    assert drawn["fast"] > 150_000  # of the Panda and what it stands on
    assert drawn["lite"] < 0.2 * drawn["fast"]
    for camera in CAMERAS:
        robot, decimated = seen["fast", camera], seen["lite", camera]
        assert robot.sum() > 500
        assert (robot & decimated).sum() > 0.97 * (robot | decimated).sum(), camera


def bumpy_ball() -> str:
    """Vertices of a closed convex surface of about 1,200 faces."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return " ".join(f"{number:.6f}" for number in (points * [0.1, 0.2, 0.3]).ravel())


def ball_model(geom: str = 'contype="0" conaffinity="0"', more: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(
        f"""<mujoco><asset><mesh name="ball" vertex="{bumpy_ball()}"/></asset>
        <worldbody><body><freejoint/><geom type="mesh" mesh="ball" {geom}/><site name="eye"/></body></worldbody>
        {more}</mujoco>"""
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def faces_of(model: mujoco.MjModel) -> np.ndarray:
    return model.mesh_face[: model.mesh_facenum[0]].copy()


def test_a_decimated_mesh_is_closed_and_keeps_its_volume(cache: Path) -> None:
    model = ball_model()
    before = faces_of(model)
    decimate_visual_meshes(model)
    faces = faces_of(model)
    assert len(before) > 1000
    assert 200 < len(faces) <= 250
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()  # each edge between two faces: no holes
    volumes = [np.linalg.det(model.mesh_vert[f]).sum() / 6 for f in (before, faces)]
    assert 0.93 < volumes[1] / volumes[0] < 1.01  # a convex body shrinks when it loses vertices
    normals = np.cross(*(model.mesh_vert[faces[:, k]] - model.mesh_vert[faces[:, 0]] for k in (1, 2)))
    corners = model.mesh_normal[model.mesh_facenormal[: len(faces)]]
    fit = np.einsum("fx,fcx->fc", normals, corners)  # the cosine to the face's own normal, times twice its area
    assert fit.sum() > 0.9 * 3 * np.linalg.norm(normals, axis=1).sum()  # lit from the side that is seen
    twice = faces_of(model)
    decimate_visual_meshes(model)
    np.testing.assert_array_equal(faces_of(model), twice)


@pytest.mark.parametrize(
    ("geom", "more"),
    [
        ("", ""),
        ('contype="0"', ""),
        ('contype="0" conaffinity="0"', '<sensor><rangefinder site="eye"/></sensor>'),
    ],
    ids=["collides", "is collided with", "rays are cast"],
)
def test_what_physics_could_read_keeps_its_faces(geom: str, more: str, cache: Path) -> None:
    model = ball_model(geom, more)
    before = faces_of(model)
    decimate_visual_meshes(model)
    np.testing.assert_array_equal(faces_of(model), before)


def test_decimated_meshes_are_cached_whole_or_not_at_all(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ball_model()
    decimate_visual_meshes(model)
    expected = faces_of(model)
    (file,) = [path for path in cache.rglob("*") if path.is_file()]

    turned = np.load(file)[::-1].copy()  # the same faces in another order, so that reading shows
    np.save(file, turned)
    model = ball_model()
    decimate_visual_meshes(model)
    np.testing.assert_array_equal(faces_of(model), expected[::-1])

    for damage in (file.read_bytes()[:-100], b"", _npy(np.full_like(turned, 10_000)), _npy(turned.astype(float))):
        file.write_bytes(damage)
        model = ball_model()
        decimate_visual_meshes(model)
        np.testing.assert_array_equal(faces_of(model), expected)
        np.testing.assert_array_equal(np.load(file)[:, :, 0], expected)  # mended

    blocked = cache / "a file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    model = ball_model()
    decimate_visual_meshes(model)
    np.testing.assert_array_equal(faces_of(model), expected)


def _npy(array: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()
