"""Forked children of a test."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

# For mypy: what follows is for systems that fork.
assert sys.platform != "win32"


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a forked child, which then ends without a word."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs ends, and the test with it
        try:
            os.write(writer, json.dumps(work()).encode())
        except BaseException as exc:
            os.write(writer, json.dumps(f"the child failed: {exc!r}").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        data = answer.read()
    os.waitpid(child, 0)
    return json.loads(data)
