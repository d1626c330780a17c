"""From a module to a core that any robot computer runs: traced, free of devices, in the precision asked for.

Shape letters: B batch, O observation steps, H and W image size, S state size, A action size.
"""

import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pixio_robot.encoders import VisionEncoder

Precision = Literal["float32", "float16", "bfloat16", "int8"]


class EncoderCore(nn.Module):
    """An encoder as a core: images of one camera → tokens (B, G + h·w, D)."""

    def __init__(self, encoder: VisionEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: list[Tensor], state: Tensor, noise: Tensor, task: Tensor) -> Tensor:
        """Return the tokens; the others are not used."""
        del state, noise, task
        return self.encoder(images[0]).flatten()


class PolicyCore(nn.Module):
    """A LeRobot policy as a core: images, normalised state, noise and task → normalised actions (B, horizon, A)."""

    def __init__(self, policy: nn.Module, cameras: list[str], takes_noise: bool) -> None:
        super().__init__()
        self.policy: Any = policy
        self.cameras = cameras
        self.takes_noise = takes_noise

    def forward(self, images: list[Tensor], state: Tensor, noise: Tensor, task: Tensor) -> Tensor:
        """Return the normalised action chunk; a policy of one task does not look at `task`."""
        observation = {**dict(zip(self.cameras, images, strict=True)), "observation.state": state, "task": task}
        return self.policy.predict_action_chunk(observation, **({"noise": noise} if self.takes_noise else {}))


def reduce_precision(encoder: VisionEncoder, precision: Precision) -> None:
    """Change an encoder's backbone, in place, to the precision; what goes in and comes out stays float32.

    The policy's head is a small part of the work and stays as it is, so that a sampler's steps lose nothing. int8 is
    dynamic: weights of linear layers per channel, activations by their range in each call.
    """
    if precision == "float32":
        return
    if precision == "int8":
        # Present in torch until torchao takes it over; TorchScript files can hold nothing else.
        from torch.ao.quantization import quantize_dynamic
        from torch.ao.quantization.qconfig import per_channel_dynamic_qconfig

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_dynamic(encoder.backbone, {nn.Linear: per_channel_dynamic_qconfig}, inplace=True)
        return
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}[precision]
    encoder.backbone.to(dtype)
    full = encoder.backbone.forward_features
    encoder.backbone.forward_features = lambda images: full(images.to(dtype)).to(torch.float32)


def trace_core(
    core: nn.Module, images: list[Tensor], state: Tensor, noise: Tensor, task: Tensor
) -> torch.jit.ScriptModule:
    """Return the core as a TorchScript module that runs on whatever device its state lies on.

    Args:
        core: One of the cores above.
        images: Example images (B, [O,] 3, H, W) in [0, 1] of every camera; B must not be 1, which tracing would fix.
        state: Example state.
        noise: Example noise.
        task: Example tasks.
    """
    core.eval().requires_grad_(False)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shape checks become constants, which fixed sizes intend
        traced = torch.jit.trace(core, (images, state, noise, task), check_trace=False)
    assert isinstance(traced, torch.jit.ScriptModule)
    _follow_the_inputs_device(traced)
    return traced


def _follow_the_inputs_device(traced: torch.jit.ScriptModule) -> None:
    """Put the state's device in the place of every device that tracing wrote down.

    A trace on the CPU creates tensors on the CPU wherever it is loaded. `map_location` moves weights and constants,
    but not these.
    """
    graph: Any = traced.graph
    torch._C._jit_pass_inline(graph)
    state = list(graph.inputs())[2]
    device = graph.create("prim::device", [state], 1)
    device.output().setType(torch._C.DeviceObjType.get())
    graph.prependNode(device)
    for node in list(_nodes(graph)):
        if node.kind() == "prim::Constant" and str(node.output().type()) == "Device":
            node.output().replaceAllUsesWith(device.output())
    torch._C._jit_pass_dce(graph)
    graph.lint()


def _nodes(block: Any) -> Iterator[Any]:  # noqa: ANN401 (torch's graphs have no public type)
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
