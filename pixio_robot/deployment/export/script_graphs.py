"""TorchScript encoders of users as graphs of operations, which torch.export can look into.

torch.export runs TorchScript's interpreter as one step, and that takes the example's number of rows for the only one
there is.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch._export.converter import TS2EPConverter  # private, and there in every torch that pyproject.toml admits

from pixio_robot.common.errors import UserError
from pixio_robot.encoders.torchscript import TorchScriptBackbone


@contextlib.contextmanager
def opened_scripts(core: nn.Module) -> Iterator[None]:
    """Turn TorchScript encoders in a core, in place, into graphs, for the length of an export.

    Raises:
        UserError: Inside: an encoder does what no graph holds, such as control flow that depends on pixels.
    """
    backbones = [module for module in core.modules() if isinstance(module, TorchScriptBackbone)]
    if not backbones:
        yield
        return
    scripts = [backbone.module for backbone in backbones]
    # torch logs the whole graph and its own stack where it gives up; a user cannot act on either.
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for backbone in backbones:
                backbone.module = _ScriptToGraph(torch.jit.freeze(backbone.module), _EXAMPLE).convert()
            yield
    except Exception as error:
        files = ", ".join(str(backbone.path) for backbone in backbones)
        raise UserError(
            f"torch cannot turn the code of {files} into a graph for any number of observations "
            f"({str(error).strip().splitlines()[0][:120]}): use format=torchscript."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
        for backbone, script in zip(backbones, scripts, strict=True):
            backbone.module = script


# Annotates the graph with types; sizes are read anew from the images that it is exported for.
_EXAMPLE = (torch.zeros(2, 3, 64, 64),)


class _ScriptToGraph(TS2EPConverter):
    """Stops before the graph is bound to the sizes of the example, which are not the cameras'."""

    def retrace_as_exported_program(self, gm: torch.fx.GraphModule, name_to_constant: dict[str, Any]) -> Any:  # noqa: ANN401
        del name_to_constant
        return gm
