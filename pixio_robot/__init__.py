"""Pixio encoders as visual backbones for robot policies.

Importing the package registers the Pixio variants with timm, so that
`timm.create_model("pixio_vitb16")` works from then on.
"""

import importlib.util

__version__ = "0.1.0"

# A robot's computer that only runs artifacts has torch and no timm.
if importlib.util.find_spec("timm") is not None:
    from pixio_robot import encoders

    __all__ = ["__version__", "encoders"]
