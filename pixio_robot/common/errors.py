"""The one way a user's mistake leaves the package: a sentence, exit code 2, no traceback."""

import difflib
import functools
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta


class UserError(ValueError):
    """A mistake of the user's: the message says what is wrong, what was expected and what to do."""


_DRIVES_TERMINAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, characters that turn the direction of text, and halves of characters."""


def printable(text: str) -> str:
    """Return text of unknown origin as it may be printed: what would drive the terminal is written as its code."""
    return _DRIVES_TERMINAL.sub(lambda found: ascii(found[0])[1:-1], text)


def nearest_name(name: str, choices: Iterable[str]) -> str:
    """Return a hint that names the closest valid choices and then all of them.

    Those that begin with what was written are closest, up to three; else the one that is spelt most alike.

    Args:
        name: What the user wrote.
        choices: The valid names.
    """
    known = sorted(set(choices))
    begun = [choice for choice in known if choice.lower().startswith(name.lower())] if len(name) > 2 else []
    close = begun if 0 < len(begun) <= 3 else difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}Valid names: {', '.join(known)}."


def exits_on_user_error[**P, R](main: Callable[P, R]) -> Callable[P, R]:
    """Turn `UserError`, an extra that is not installed (exit code 2) and Ctrl-C (exit code 130) into a clean end of a script.

    Of several processes started by torchrun or accelerate, the first to fail prints; the others end quietly.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            if _fails_first():
                print(f"error: {printable(str(error))}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("stopped.", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            advice = missing_extra(error.name or "") if isinstance(error, ModuleNotFoundError) else None
            if _fails_first():
                if advice is None:
                    raise
                print(f"error: {advice}", file=sys.stderr)
            sys.exit(2)  # lost its peers, one of which said why

    return wrapped


_PLUGINS = {"lerobot_policy_pixio": "policies", "lerobot_env_pixio": "envs"}
"""This package's other distributions, and where they are in a clone."""

_OF_LEROBOT = ("accelerate", "datasets", "draccus", "gymnasium")
"""What LeRobot brings and this package imports beside it."""


def missing_extra(module: str) -> str | None:
    """Say how to install what a module that is not there belongs to; None for one that is no extra of this package.

    Args:
        module: Dotted name of the module.
    """
    package = module.partition(".")[0]
    package = "lerobot" if package in _OF_LEROBOT else package
    if package in _PLUGINS:
        in_clone = f"pip install -e {_PLUGINS[package]}"
        return f"This needs {package}, which is not installed: pip install {package} (in a clone: {in_clone})."
    for requirement in importlib.metadata.requires("pixio-robot") or ():
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if extra and re.match(rf"{package}\b(?!-)", requirement.replace("_", "-")):
            return f"This needs {package}, which is not installed: pip install 'pixio-robot[{extra[1]}]'."
    return None


def _fails_first() -> bool:
    """Whether no process started together with this one has failed before; their launcher's store keeps count."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return True
    from torch.distributed import DistNetworkError, TCPStore  # pyright: ignore[reportPrivateImportUsage]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))
    except DistNetworkError:  # the launcher is gone, or has no store
        return os.environ["RANK"] == "0"
    return store.add(f"pixio_robot/failed/{os.environ['TORCHELASTIC_RESTART_COUNT']}", 1) == 1
