"""Pixio encoders as visual backbones for robot policies.

Importing the package registers the Pixio variants with timm, so that
`timm.create_model("pixio_vitb16")` works from then on.
"""

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixio_robot import encoders

__version__ = "0.1.0"

__all__ = ["__version__", "encoders"]

# A robot's computer that only runs artifacts has torch and no timm.
if importlib.util.find_spec("timm") is not None:
    from wrapt import when_imported

    # timm and torch take seconds to import, and a misspelt choice is answered, or worker processes started, before.
    @when_imported("timm")
    def _register_variants(timm: ModuleType) -> None:
        importlib.import_module("pixio_robot.encoders.pixio")


def __getattr__(name: str) -> ModuleType:
    """Import `pixio_robot.encoders` where it is first used."""
    if name == "encoders":
        return importlib.import_module("pixio_robot.encoders")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
