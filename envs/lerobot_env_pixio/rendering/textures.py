"""Random surface textures: crops of robosuite's photographs, and patterns made from formulas."""

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import mujoco

PHOTO_SIZE = 320


def package_folder(package: str) -> Path:
    """Return an installed package's folder without importing it, which for a simulator is slow and noisy."""
    found = importlib.util.find_spec(package)
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


@functools.cache
def _photographs() -> tuple[np.ndarray, ...]:
    return tuple(
        np.asarray(Image.open(path).convert("RGB").resize((PHOTO_SIZE, PHOTO_SIZE)))
        for path in sorted((package_folder("robosuite") / "models/assets/textures").glob("*.png"))
    )


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """Return an RGB colour in [0, 1]: greys, muted and saturated colours, dark to light."""
    value = rng.uniform(0.15, 1.0)
    saturation = rng.choice([rng.uniform(0, 0.15), rng.uniform(0.1, 0.6), rng.uniform(0.6, 1.0)])
    hue = rng.uniform(0, 6)
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation * (1 - wheel))


def _smooth_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Sum of linearly enlarged random grids (values about 0 to 1), the classic value noise."""
    total = np.zeros((size, size), np.float32)
    cells = int(rng.integers(2, 9))
    amplitude = 1.0
    while cells < size // 2 and amplitude > 0.05:
        grid = Image.fromarray(rng.random((cells, cells), np.float32))
        total += amplitude * np.asarray(grid.resize((size, size), Image.Resampling.BILINEAR))
        cells, amplitude = cells * 3, amplitude * rng.uniform(0.3, 0.7)
    low, high = total.min(), total.max()
    return (total - low) / (high - low + 1e-6)


def _mask(rng: np.random.Generator, size: int) -> np.ndarray:
    """A pattern in [0, 1] that mixes two colours."""
    kind = rng.choice(["noise", "checker", "stripes", "gradient", "dots", "grain", "tiles"])
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    count = int(rng.integers(1, 9))
    match kind:
        case "noise":
            return _smooth_noise(rng, size)
        case "checker":
            return ((np.floor(x * 2 * count) + np.floor(y * 2 * count)) % 2).astype(np.float32)
        case "stripes":
            return (np.sin(2 * np.pi * count * 2 * along) > rng.uniform(-0.8, 0.8)).astype(np.float32)
        case "gradient":
            return np.clip(along, 0, 1)
        case "dots":
            fx, fy = (x * 2 * count) % 1 - 0.5, (y * 2 * count) % 1 - 0.5
            return (fx**2 + fy**2 < rng.uniform(0.02, 0.2)).astype(np.float32)
        case "grain":  # wood: rings of a stretched noise
            return 0.5 + 0.5 * np.sin(2 * np.pi * (count * x + rng.uniform(1, 3) * _smooth_noise(rng, size)))
        case _:  # tiles with joints
            joint = rng.uniform(0.03, 0.12)
            return (((x * count) % 1 > joint) & ((y * count) % 1 > joint)).astype(np.float32)


def random_texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a random texture.

    Args:
        rng: Source of every choice.
        size: Side in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    kind = rng.choice(["photo", "tinted photo", "pattern", "noisy pattern", "plain"], p=[0.2, 0.2, 0.3, 0.2, 0.1])
    first, second = random_colour(rng), random_colour(rng)
    if "photo" in kind:
        photographs = _photographs()
        photo = photographs[rng.integers(len(photographs))]
        side = int(rng.integers(PHOTO_SIZE // 4, PHOTO_SIZE + 1))
        top, left = rng.integers(0, PHOTO_SIZE - side + 1, 2)
        crop = Image.fromarray(photo[top : top + side, left : left + side]).resize(
            (size, size), Image.Resampling.BILINEAR
        )
        image = np.rot90(np.asarray(crop, np.float32), int(rng.integers(4)))
        if kind == "tinted photo":
            image = image.mean(axis=2, keepdims=True) * (0.3 + 1.2 * first)
    elif kind == "plain":
        image = np.broadcast_to(255 * first, (size, size, 3))
    else:
        mask = _mask(rng, size)[:, :, None]
        image = 255 * (mask * first + (1 - mask) * second)
        if kind == "noisy pattern":
            image = image * (0.6 + 0.6 * _smooth_noise(rng, size))[:, :, None]
    return np.clip(image, 0, 255).astype(np.uint8)


def paint(model: "mujoco.MjModel", texture: int, image: np.ndarray) -> None:
    """Write a square image into a texture, once per face for cubes and sky boxes."""
    height, width = model.tex_height[texture], model.tex_width[texture]
    channels, start = model.tex_nchannel[texture], model.tex_adr[texture]
    pixels = np.tile(image, (height // image.shape[0], width // image.shape[1], 1))
    assert pixels.shape == (height, width, channels)
    model.tex_data[start : start + pixels.size] = pixels.ravel()


def add_material(spec: "mujoco.MjSpec", name: str, size: int, cube: bool = False, **look: Any) -> None:  # noqa: ANN401
    """Add a material whose square texture, of the same name and one colour, waits to be painted.

    Args:
        spec: The model before it is compiled.
        name: Of material and texture.
        size: Side of the texture in pixels.
        cube: Whether it has six sides, to wrap any shape, or is flat.
        **look: Further attributes of the material.
    """
    import mujoco

    kind = mujoco.mjtTexture.mjTEXTURE_CUBE if cube else mujoco.mjtTexture.mjTEXTURE_2D
    spec.add_texture(name=name, type=kind, builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT, width=size, height=size)
    textures = [""] * mujoco.mjtTextureRole.mjNTEXROLE
    textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    spec.add_material(name=name, textures=textures, **look)
