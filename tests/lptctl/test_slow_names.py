"""A name that nobody resolves: Ctrl-C ends lptctl at once, whichever client the command uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BOUND_S = 30
# The look-up never ends: whoever waited for it would not, either.
SITECUSTOMIZE = """
import os, socket, threading

def getaddrinfo(*_, **__):
    os.write(2, b"looking up\\n")
    threading.Event().wait()

socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.parametrize(
    "command", [["ping"], ["latency"], ["listen"], ["drain"], ["run", "--", "true"]], ids=lambda command: command[0]
)
def test_ctrl_c_while_a_name_is_looked_up(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-m", "lptctl", "--url", "lpt://slow.example/LPT1", *command],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    with process, process.stderr:
        assert process.stderr.readline() == b"looking up\n"
        process.send_signal(signal.SIGINT)
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(BOUND_S) in (-signal.SIGINT, 128 + signal.SIGINT)
