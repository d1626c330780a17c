"""Adapters: one module per simulator, each of which turns a family into a blueprint."""

from collections.abc import Callable

from lerobot_env_pixio.scenes.adapters import aloha, metaworld, procedural, robosuite
from lerobot_env_pixio.scenes.blueprint import Blueprint
from lerobot_env_pixio.scenes.families import Family

BLUEPRINTS: dict[str, Callable[[Family], Blueprint]] = {
    "robosuite": robosuite.blueprint,
    "metaworld": metaworld.blueprint,
    "aloha": aloha.blueprint,
    "procedural": procedural.blueprint,
}

__all__ = ["BLUEPRINTS"]
