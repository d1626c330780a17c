"""Pixio encoders as visual backbones for robot policies.

Importing the package registers the Pixio variants with timm, so that
`timm.create_model("pixio_vitb16")` works from then on.
"""

from pixio_robot import encoders

__version__ = "0.1.0"
__all__ = ["__version__", "encoders"]
