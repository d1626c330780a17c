"""Pictures of a run for its report: demonstrations, and what the encoder's autoencoder makes of their frames."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pixio_robot.common.errors import UserError
from pixio_robot.demos import DemoStore
from pixio_robot.encoders import EncoderConfig
from pixio_robot.encoders.pixio import WEIGHTS_FOLDER
from pixio_robot.images.preprocessing import ImagePreprocessor, frames_to_images, resize
from pixio_robot.pretraining.model.weights import load_mae
from pixio_robot.pretraining.pictures import reconstruct
from pixio_robot.reports.charts import save_picture

_COLUMNS = 8


def save_run_pictures(store: DemoStore, encoder: EncoderConfig, preprocess: ImagePreprocessor, folder: Path) -> None:
    """Write a strip of the first demonstration and, where a decoder ships, reconstructions of its frames.

    Args:
        store: Demonstrations.
        encoder: The run's encoder; only shipped weights have a decoder beside them.
        preprocess: What the encoder does to frames first: their size is that of the reconstructions.
        folder: Receives PNG files, whose names the report knows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    episode = store.episode_range(0)
    steps = np.linspace(episode.start, episode.stop - 1, _COLUMNS).round().astype(np.int64)
    views = [store.read_steps(key, steps) for key in store.image_keys]
    save_picture(_stack([np.concatenate(list(frames), axis=1) for frames in views]), folder / "demonstration.png")
    encoder_file = WEIGHTS_FOLDER / f"{encoder.name}.safetensors"
    decoder_file = WEIGHTS_FOLDER / f"{encoder.name}_decoder.safetensors"
    if encoder.weights == "pretrained" and decoder_file.exists():
        mae = load_mae(encoder.name, encoder_file, decoder_file)
        by_size: dict[tuple[int, ...], list[np.ndarray]] = {}
        for frames in views:
            seen = resize(
                frames_to_images(torch.from_numpy(frames[:: _COLUMNS // 4])), preprocess.resized(*frames.shape[1:3])
            )
            frames = (255 * seen.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            by_size.setdefault(frames.shape[1:], []).append(frames)
        rows = []
        for same_size in by_size.values():
            with contextlib.suppress(UserError):  # the decoder needs whole mask blocks, which a policy does not
                rows.append(reconstruct(mae, torch.from_numpy(np.concatenate(same_size)), seed=0))
        if rows:
            save_picture(_stack(rows), folder / "reconstruction.png")


def _stack(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures of any widths below each other, with white on the right."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255) for picture in pictures
    ]
    return np.concatenate(padded)
