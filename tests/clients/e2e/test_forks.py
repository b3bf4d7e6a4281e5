"""Forked children and a real daemon: what a child does, and how it ends, does not reach its parent's port."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lpt_client import blocking
from tests.clients.e2e.conftest import BOUND_S

if not hasattr(os, "fork"):
    pytest.skip("this system does not fork", allow_module_level=True)

_CHILD_ENDS = """
import multiprocessing, os, sys, warnings
import lpt_client
from lpt_client import blocking

def use(port, answers):
    try:
        port.read_data()
    except lpt_client.OtherProcess:
        answers.put("refused")

if __name__ == "__main__":
    with blocking.open_port(sys.argv[1], reconnect=True) as port, port.allocated(), port.connect_interrupt() as edges:
        if os.fork() == 0:
            try:
                port.write_data(1)
            finally:
                sys.exit()  # leaves its blocks, runs what is to be run at exit, drops what it has
        _, status = os.wait()
        fork = multiprocessing.get_context("fork")
        answers = fork.SimpleQueue()
        child = fork.Process(target=use, args=(port, answers))
        child.start()
        print(os.WEXITSTATUS(status), answers.get(), port.read_data(), port.write_data(0) > 0)
        child.join()
        port.pulse(0x08, width_us=10)
        print(edges.next(30)[0] >= 0, port.grant == port.status()["owner"]["grant"])
"""

_PARENT_IS_KILLED = """
import os, sys, time
from lpt_client import blocking
port = blocking.open_port(sys.argv[1], reconnect=True)
port.allocate()
if os.fork() == 0:
    os.close(1)
    sys.stdin.read()  # lives until the test ends it
    os._exit(0)
print("owns", flush=True)
time.sleep(60)
"""


def test_a_child_ends(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", _CHILD_ENDS, url], capture_output=True, text=True, timeout=BOUND_S)
    assert done.stdout.splitlines() == ["0 refused 0 True", "True True"], done.stderr


def test_a_child_outlives_its_parent(url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT_IS_KILLED, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "owns\n"
        parent.kill()
        with blocking.open_port(url) as port, port.allocated(timeout=BOUND_S):
            assert parent.wait() < 0
