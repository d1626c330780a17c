"""The golden pair of files that are no TorchScript, and what it says of the inputs they take; needs torch alone."""

import base64
import io
from collections.abc import Mapping

import torch
from torch import Tensor

from pixio_robot.common.errors import UserError


def write_golden(observation: Mapping[str, Tensor], output: Tensor) -> str:
    """Return a golden observation and output as text."""
    content = io.BytesIO()
    torch.save({"observation": dict(observation), "output": output}, content)
    return base64.b64encode(content.getvalue()).decode()


def read_golden(text: str | bytes) -> tuple[dict[str, Tensor], Tensor]:
    """Return the golden observation and output of a text by `write_golden`."""
    golden = torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True)
    return golden["observation"], golden["output"]


def check_like(golden: Mapping[str, Tensor], observation: Mapping[str, Tensor]) -> None:
    """Check that an observation has the golden one's keys, dtypes and shapes, for any number of rows.

    Raises:
        UserError: It has not.
    """
    rows = {len(observation[key]) for key in golden if key in observation}
    for key, example in golden.items():
        given = observation.get(key)
        if given is None:
            raise UserError(f"{key} is missing: the artifact reads {', '.join(golden)}.")
        if given.shape[1:] != example.shape[1:] or given.dtype != example.dtype or len(rows) != 1:
            raise UserError(
                f"{key} must be {example.dtype} (B, {', '.join(map(str, example.shape[1:]))}), with the same B for "
                f"all, not {given.dtype} {tuple(given.shape)}."
            )
