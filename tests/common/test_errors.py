"""What strangers named is printed, and drives no terminal: by a sentence, by a log, by rich."""

import io
import logging

import pytest
from rich.console import Console

from pixio_robot.common.errors import UserError, exits_on_user_error, printable

STRANGE = "\x1b]0;title\x07\x1b[2J\x9b31m a\u202eb \ud800"


def test_nothing_that_is_printed_drives_the_terminal(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shown = io.StringIO()

    def job() -> None:
        logging.getLogger("some").warning("skipped %s", STRANGE)
        Console(file=shown, force_terminal=True, color_system=None).print(
            STRANGE.removesuffix("\ud800"), "plain", markup=False
        )
        raise UserError(STRANGE)

    with pytest.raises(SystemExit):
        exits_on_user_error(job)()
    for said in (capsys.readouterr().err, caplog.text, shown.getvalue()):
        assert "title" in said
        assert not {"\x1b", "\x07", "\x9b"} & set(said), ascii(said)
    assert printable("ä\t\n") == "ä\t\n"
