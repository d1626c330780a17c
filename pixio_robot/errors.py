"""The one way a user's mistake leaves the package: a sentence, exit code 2, no traceback."""

import difflib
import functools
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """A mistake of the user's: the message says what is wrong, what was expected and what to do."""


def nearest_name(name: str, choices: Iterable[str]) -> str:
    """Return a hint that names the closest valid choice and then all of them.

    Args:
        name: What the user wrote.
        choices: The valid names.
    """
    known = sorted(set(choices))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Valid names: {', '.join(known)}."


def exits_on_user_error[**P, R](main: Callable[P, R]) -> Callable[P, R]:
    """Turn `UserError` (exit code 2) and Ctrl-C (exit code 130) into a clean end of a script."""

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("stopped.", file=sys.stderr)
            sys.exit(130)

    return wrapped
