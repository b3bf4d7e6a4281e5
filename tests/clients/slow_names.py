"""Programs that look up a name which nobody ever resolves: whoever waited for the look-up would not end, either."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

BOUND_S = 30
SITECUSTOMIZE = """
import os, socket, threading

def getaddrinfo(*_, **__):
    os.write(2, b"looking up\\n")
    threading.Event().wait()

socket.getaddrinfo = getaddrinfo
"""


def interrupt(arguments: list[str], folder: Path) -> tuple[int, bytes]:
    """Run Python with these, and send SIGINT while it looks up a name: how it ends, and what it says then."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    with process, process.stderr:
        assert process.stderr.readline() == b"looking up\n"
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        return process.wait(BOUND_S), said
