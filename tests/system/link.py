"""A link that can be cut: a network namespace at the other end of a veth pair, for a client that becomes unreachable.

Needs root and `ip` (iproute2).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.daemons import PROJECT

# Addresses of RFC 2544, for tests of networks: nobody's.
DAEMON_HOST, CLIENT_HOST = "198.18.77.1", "198.18.77.2"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Link:
    """A network namespace, and the link to it."""

    def __init__(self) -> None:
        self.namespace = f"lpt-{os.getpid()}"
        self._here, self._there = f"lptv{os.getpid()}"[:14] + "a", f"lptv{os.getpid()}"[:14] + "b"

    def up(self) -> None:
        ip("netns", "add", self.namespace)
        ip("link", "add", self._here, "type", "veth", "peer", "name", self._there)
        ip("link", "set", self._there, "netns", self.namespace)
        ip("addr", "add", f"{DAEMON_HOST}/30", "dev", self._here)
        ip("link", "set", self._here, "up")
        ip("-n", self.namespace, "addr", "add", f"{CLIENT_HOST}/30", "dev", self._there)
        self.mend()

    def cut(self) -> None:
        """The cable is pulled: nothing passes any more, and nobody is told."""
        ip("-n", self.namespace, "link", "set", self._there, "down")

    def mend(self) -> None:
        """The cable is back: what was on its way is sent again."""
        ip("-n", self.namespace, "link", "set", self._there, "up")

    def remove(self) -> None:
        # The link first: with its namespace it would go some time later, and be in the way of the next one.
        for what in (("link", "del", self._here), ("netns", "del", self.namespace)):
            subprocess.run(["ip", *what], check=False, capture_output=True)

    def start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """`python -m MODULE …` at the other end; its output can be read, its input written. The caller ends it."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, sys.executable, "-m", module, *arguments],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


@contextmanager
def linked() -> Iterator[Link]:
    """A link that is up; the test is left out where there can be none."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    link = Link()
    try:
        try:
            link.up()
        except subprocess.CalledProcessError as exc:
            pytest.skip(f"no network namespaces here: {exc.stderr.decode().strip()}")
        yield link
    finally:
        link.remove()
