"""The one way a user's mistake leaves the package: a sentence, exit code 2, no traceback."""

import difflib
import errno
import functools
import importlib.metadata
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta

from pixio_robot.common.commands import as_called_here


class UserError(ValueError):
    """A mistake of the user's: the message says what is wrong, what was expected and what to do."""


_DRIVES_TERMINAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, characters that turn the direction of text, and halves of characters."""


def printable(text: str) -> str:
    """Return text of unknown origin as it may be printed: what would drive the terminal is written as its code."""
    return _DRIVES_TERMINAL.sub(lambda found: ascii(found[0])[1:-1], text)


class _PrintableRecord(logging.LogRecord):
    def getMessage(self) -> str:  # noqa: N802 (logging's name)
        return printable(super().getMessage())


def keep_terminal() -> None:
    """Let nothing that is logged or shown by rich drive the terminal, whoever's names and words are in it."""
    logging.setLogRecordFactory(_PrintableRecord)
    # rich takes out the bell and the like; what begins an escape code it lets through.
    taken_out = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
    if "rich.control" in sys.modules:  # where it is not yet, as on a robot's computer, nothing is shown by it
        sys.modules["rich.control"]._CONTROL_STRIP_TRANSLATE.update(taken_out)


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


_DISK_FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
_NOT_ALLOWED = (errno.EROFS, errno.EACCES, errno.EPERM)


def full_disk(error: BaseException | None) -> str | None:
    """Return the system's word for a full disk, no inodes, a used-up quota or a file-size limit, where an error comes from one.

    Libraries wrap it, pass its words on alone, or fail once more, in another way, when they close the file.
    """
    while error is not None:
        said = f"{error} {error.strerror}" if isinstance(error, OSError) else str(error)
        for word in _DISK_FULL:
            if word in said:
                return word
        error = error.__cause__ or error.__context__
    return None


def disk_refusal(error: BaseException) -> str | None:
    """Say in a sentence that a disk is full, or that a place may not be written to or read, where that is what is wrong."""
    word = full_disk(error)
    where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
    if word is not None:
        return f"The disk is full ({word}){where}: free some space and run again; what was finished before is kept."
    if isinstance(error, OSError) and error.errno in _NOT_ALLOWED and error.filename:
        return f"{error.filename} may not be opened or made ({error.strerror}): choose another place, or change its permissions."
    return None


def exits_on_user_error[**P, R](main: Callable[P, R]) -> Callable[P, R]:
    """Turn what a user can mend (exit code 2) and Ctrl-C (exit code 130) into a clean end of a script.

    That is a `UserError`, an extra that is not installed, and a disk that is full or may not be written to. Who reads what
    is printed may stop before its end, as `| head` does: that ends a script quietly (exit code 1).
    Of several processes started by torchrun or accelerate, the first to fail prints; the others end quietly.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        keep_terminal()
        try:
            return main(*args, **kwargs)
        except UserError as error:
            if _fails_first():
                print(f"error: {printable(as_called_here(str(error)))}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("stopped.", file=sys.stderr)
            sys.exit(130)
        except BrokenPipeError:
            if not _nobody_reads():
                raise
            sys.exit(1)
        except Exception as error:
            no_module = isinstance(error, ModuleNotFoundError)
            advice = missing_extra(error.name or "") if no_module else disk_refusal(error)
            if _fails_first():
                if advice is None:
                    raise
                print(f"error: {printable(advice)}", file=sys.stderr)
            sys.exit(2)  # lost its peers, one of which said why

    return wrapped


def _nobody_reads() -> bool:
    """Whether standard output goes nowhere any more; what is left of it is then dropped."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


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
