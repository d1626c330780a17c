"""A GPU that only keeps account: tensors on it have a device, a shape and a type, but no numbers.

torch refuses an operation on tensors of two devices here as it does on a real GPU. So a constant that an artifact has on
the CPU, whatever device it is loaded to, shows on machines without a GPU.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export.passes import move_to_device_pass
from torch.jit._fuser import optimized_execution
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda:0")


class _AroundFakes(TorchDispatchMode):
    """Computes what is on the CPU alone, such as sizes, and calls the convolution that needs no library of a GPU's."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._convolution.default:
            func, args = torch.ops.aten.convolution.default, args[:9]
        if not any(_is_on_gpu(leaf) for leaf in tree_leaves((args, kwargs))):
            with _disable_current_modes():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def _is_on_gpu(leaf: object) -> bool:
    return isinstance(leaf, FakeTensor) or (isinstance(leaf, torch.device) and leaf.type == GPU.type)


def run_on_meta(module: torch.jit.ScriptModule, observation: Mapping[str, Tensor]) -> Tensor:
    """Run a whole artifact that was loaded to the device `meta`, whose tensors have no numbers either."""
    with torch.no_grad(), _AroundFakes(), optimized_execution(False):
        return module(dict(observation))


class FakeGpu:
    """Runs modules whose parameters and inputs it has moved."""

    def __init__(self) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)  # constants keep the device that they have

    def tensor(self, like: Tensor) -> Tensor:
        """Return a tensor without numbers on the GPU."""
        with self._mode:
            return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=GPU)

    def run_script(self, module: torch.jit.ScriptModule, *inputs: Any) -> Tensor:
        """Move a TorchScript module, for good, and run it on inputs that are on the GPU."""
        for part in module.modules():
            assert isinstance(part, torch.jit.ScriptModule)
            for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                part._c.setattr(name, self.tensor(tensor))
        # Optimising would run parts of the code with other numbers.
        with torch.no_grad(), self._mode, _AroundFakes(), optimized_execution(False):
            return module(*inputs)

    def run_program(self, program: torch.export.ExportedProgram, observation: Mapping[str, Tensor]) -> Tensor:
        """Move a program of torch.export and run it on an observation."""
        with torch.no_grad(), self._mode:
            module = move_to_device_pass(program, str(GPU)).module()
            return module({key: self.tensor(value) for key, value in observation.items()})

    def run_artifact(self, module: torch.jit.ScriptModule, observation: Mapping[str, Tensor]) -> Tensor:
        """Run the traced core of an artifact; its shell moves frames to the GPU, for which torch wants a real one."""
        images = [self.tensor(module.image(observation[key], index)) for index, key in enumerate(module.cameras)]
        unused = torch.zeros(len(images[0]), 1, 1)
        state, noise = (self.tensor(observation.get(key, unused)) for key in ("observation.state", "noise"))
        task = self.tensor(observation.get("task", torch.zeros(1, dtype=torch.int64)))
        return self.run_script(module.core, images, state, noise, task)
