"""For pyright: MuJoCo's names come out of compiled modules that ship without types, so that each of them may be anything."""

from typing import Any

def __getattr__(name: str) -> Any: ...  # noqa: ANN401
