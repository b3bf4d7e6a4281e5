"""A name that nobody resolves: Ctrl-C ends lptctl at once, whichever client the command uses."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.clients import slow_names


@pytest.mark.parametrize(
    "command", [["ping"], ["latency"], ["listen"], ["drain"], ["run", "--", "true"]], ids=lambda command: command[0]
)
def test_ctrl_c_while_a_name_is_looked_up(command: list[str], tmp_path: Path) -> None:
    arguments = ["-m", "lptctl", "--url", "lpt://slow.example/LPT1", *command]
    code, said = slow_names.interrupt(arguments, tmp_path)
    assert b"Traceback" not in said
    assert code in (-signal.SIGINT, 128 + signal.SIGINT)
