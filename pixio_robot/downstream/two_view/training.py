"""Training of a two-view head by the engine, on tokens that are computed once.

Shape letters: N pairs, B pairs of a batch, V views, D width of the encoder, h and w patch grid.
"""

import math
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import save_file
from timm.optim._param_groups import param_groups_weight_decay
from torch import Tensor, nn

from pixio_robot.common.progress import progress_bar
from pixio_robot.downstream.two_view.config import TwoViewProtocol
from pixio_robot.downstream.two_view.data import Pairs
from pixio_robot.downstream.two_view.geometry import Geometry
from pixio_robot.downstream.two_view.head import TwoViewHead
from pixio_robot.downstream.two_view.losses import Prediction, two_view_loss
from pixio_robot.encoders import EncoderTokens, VisionEncoder
from pixio_robot.engine.checkpoints import Checkpoints
from pixio_robot.engine.loop import Plan, Training
from pixio_robot.engine.objective import Batch
from pixio_robot.engine.processes import Processes, join_processes
from pixio_robot.engine.run_log import RunLog
from pixio_robot.images.preprocessing import frames_to_images

_AT_ONCE = 32  # images, or pairs, that are encoded or judged
_GRADIENT_CLIP = 1.0
HEAD_FILE = "head.safetensors"


class Standard(NamedTuple):
    """Mean and deviation (D,) of the tokens of training, by which all are standardised.

    Encoders' tokens differ in size by orders; one learning rate then suits all.
    """

    mean: EncoderTokens
    deviation: EncoderTokens


def pair_tokens(encoder: VisionEncoder, pairs: Pairs, console: Console) -> EncoderTokens:
    """Encode all views once: float16 mean global (N, V, 1, D) and patch (N, V, h, w, D) tokens."""
    frames_MHWC = pairs.images_NVHWC.flatten(0, 1)
    parts: list[EncoderTokens] = []
    device = next(encoder.parameters(), torch.empty(0)).device
    batches = frames_MHWC.split(_AT_ONCE)
    with progress_bar("encoding", len(batches), console) as advance, torch.inference_mode():
        for frames_BHWC in batches:
            found = encoder(frames_to_images(frames_BHWC.to(device)))
            mean = found.global_tokens.mean(1, keepdim=True)
            parts.append(EncoderTokens(mean.cpu().float(), found.patch_tokens.cpu().float()))
            advance()
    views = pairs.images_NVHWC.shape[1]
    return EncoderTokens(*(torch.cat(some).unflatten(0, (-1, views)) for some in zip(*parts, strict=True)))


def standardise(tokens: EncoderTokens, of: Standard | None = None) -> tuple[EncoderTokens, Standard]:
    """Return float16 tokens of mean 0 and deviation 1 in every channel, and by what they were made so."""
    if of is None:
        flat = [some.flatten(0, -2) for some in tokens]
        mean, deviation = (EncoderTokens(*some) for some in zip(*((x.mean(0), x.std(0) + 1e-6) for x in flat)))
        of = Standard(mean, deviation)
    ready = ((some - mean) / deviation for some, mean, deviation in zip(tokens, of.mean, of.deviation, strict=True))
    return EncoderTokens(*(some.clamp(-60, 60).half() for some in ready)), of


class TwoViewBatch(NamedTuple):
    """What a step is made of."""

    tokens: EncoderTokens
    """float32."""
    truth: Geometry


class TwoViewObjective:
    """The losses of a head on batches of pairs, either view first."""

    phase, unit = "two_view", "pairs"

    def __init__(self, head: TwoViewHead, identity: dict[str, Any], device: torch.device) -> None:
        self.module: nn.Module = head.to(device)
        self._identity, self._device = identity, device

    def begin_step(self, step: int) -> None:
        """Nothing changes from step to step."""
        del step

    def parts(self, batch: Batch[TwoViewBatch]) -> Sequence[TwoViewBatch]:
        """Return the batch as one part."""
        tokens, truth = batch.data
        moved = TwoViewBatch(
            EncoderTokens(*(some.to(self._device) for some in tokens)),
            Geometry(*(some.to(self._device) for some in truth)),
        )
        return [moved]

    def weights(self, part: TwoViewBatch) -> Sequence[float]:
        """The loss is a mean over pairs."""
        return [len(part.truth.known_BVhw)]

    def loss(self, module: nn.Module, part: TwoViewBatch) -> Tensor:
        """Return the mean loss (1,)."""
        told: Prediction = module(part.tokens, part.truth.known_BVhw)
        with torch.autocast(self._device.type, enabled=False):
            return two_view_loss(told, part.truth)[None]

    def identity(self) -> dict[str, Any]:
        """Return what a resumed training must share."""
        return self._identity

    def save(self, folder: Path) -> None:
        """Write the head's weights."""
        save_file(self.module.state_dict(), folder / HEAD_FILE)


def train_head(
    head: TwoViewHead,
    tokens: EncoderTokens,
    pairs: Pairs,
    protocol: TwoViewProtocol,
    seed: int,
    identity: dict[str, Any],
    folder: Path,
    console: Console,
) -> None:
    """Train a head in place, from the newest checkpoint in the folder if there is one.

    Args:
        head: Freshly built.
        tokens: Standardised, of the pairs.
        pairs: With their truth.
        protocol: How long and how fast.
        seed: Decides the order of pairs.
        identity: What a resumed training must share.
        folder: Receives checkpoints and `log.jsonl`.
        console: Where progress is shown.

    Raises:
        UserError: Loss, gradients or weights stopped being numbers.
        StoppedError: The process was asked to stop; the step is finished and saved.
    """
    processes: Processes = join_processes("cuda" if torch.cuda.is_available() else "cpu", "none")
    objective = TwoViewObjective(head, identity | {"seed": seed}, processes.device)
    rising = max(1, round(protocol.warmup * protocol.steps))

    def rate(step: int) -> float:
        if step < rising:
            return protocol.learning_rate * (step + 1) / rising
        way = (step - rising) / max(1, protocol.steps - rising)
        last = protocol.final_learning_rate
        return last + (protocol.learning_rate - last) * (1 + math.cos(math.pi * way)) / 2

    groups = param_groups_weight_decay(head, protocol.weight_decay)
    plan = Plan(
        steps=protocol.steps,
        learning_rates=lambda step: [rate(step)] * len(groups),
        batch_size=protocol.batch_size,
        precision=protocol.precision,
        gradient_clip=_GRADIENT_CLIP,
        seed=seed,
        log_every=10,
        checkpoint_every=max(1, protocol.steps // 4),
    )
    with RunLog(folder, console) as log:
        Training(
            objective,
            torch.optim.AdamW(groups, lr=0.0, fused=True),
            plan,
            processes,
            Checkpoints(folder / "checkpoints", processes, keep=1),
            log,
            console=console,
        ).run(lambda first, _: _batches(tokens, pairs, protocol, seed, first))


def _batches(
    tokens: EncoderTokens, pairs: Pairs, protocol: TwoViewProtocol, seed: int, first: int
) -> Generator[Batch[TwoViewBatch]]:
    """Yield batches from a step on: pairs drawn without replacement in each pass, half of the batches with the views swapped."""
    count = len(pairs.names)
    size = min(protocol.batch_size, count)
    per_pass = count // size
    step = first
    while True:
        order = np.random.default_rng([seed, step // per_pass]).permutation(count)
        rows = torch.from_numpy(order[step % per_pass * size :][:size])
        swapped = bool(np.random.default_rng([seed, step, 1]).integers(2))
        some = EncoderTokens(*(part[rows].float() for part in tokens))
        if swapped:
            some = EncoderTokens(*(part.flip(1) for part in some))
        yield Batch(step, TwoViewBatch(some, pairs.truth(rows, swapped)), [pairs.names[row] for row in rows.tolist()])
        step += 1


@torch.inference_mode()
def tell(head: TwoViewHead, tokens: EncoderTokens, pairs: Pairs) -> Prediction:
    """Return what a head tells of all pairs, on the CPU."""
    head.eval()
    device = next(head.parameters()).device
    parts = []
    for rows in torch.arange(len(pairs.names)).split(_AT_ONCE):
        some = EncoderTokens(*(part[rows].float().to(device) for part in tokens))
        parts.append(head(some, (pairs.depth_NVhw[rows] > 0).to(device)))
    geometry = Geometry(*(torch.cat(some).cpu() for some in zip(*(part.geometry for part in parts), strict=True)))
    others = (torch.cat(some).cpu() for some in zip(*(part[1:] for part in parts), strict=True))
    return Prediction(geometry, *others)
