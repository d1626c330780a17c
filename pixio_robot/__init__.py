"""Pixio encoders as visual backbones for robot policies.

Importing the package registers the Pixio variants with timm, so that
`timm.create_model("pixio_vitb16")` works from then on.
"""

import importlib.util
import sys

__version__ = "0.1.0"

# A robot's computer that only runs artifacts has torch and no timm.
if importlib.util.find_spec("timm") is not None:
    # For a helper of its own training script timm imports wandb where it finds it: a third of what a command of ours
    # takes to start. None in its place is Python's word for a module that is not there.
    if "wandb" not in sys.modules:
        sys.modules["wandb"] = None  # pyright: ignore[reportArgumentType]
        try:
            import timm  # noqa: F401
        finally:
            del sys.modules["wandb"]
    from pixio_robot import encoders

    __all__ = ["__version__", "encoders"]
