"""lptctl drain."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lptctl.processes import Lptctl, finish, read_line, running_daemon, started, wait_until

pytest.importorskip("click")
from lpt_client import blocking


@pytest.fixture
def socket_url(tmp_path: Path) -> Iterator[str]:
    url = f"lpt+unix://{tmp_path}/s"
    with running_daemon(listen=url):
        yield url


def test_a_command_runs_when_every_port_is_idle(lptctl: Lptctl, socket_url: str) -> None:
    ask = "import lpt_client.blocking as b, sys; print(b.open_port(sys.argv[1]).status()['draining'])"
    with started("drain", "--", sys.executable, "-c", ask, socket_url, url=socket_url) as process:
        assert process.stdout is not None
        assert read_line(process.stdout) == "True"
        assert finish(process).code == 0
    with blocking.open_port(socket_url) as port:
        wait_until(lambda: not port.status()["draining"])
    assert lptctl("drain", "--", "sh", "-c", "exit 7", url=socket_url).code == 7
    assert lptctl("drain", "--", "/no/such").code == 127


def test_an_owner_is_waited_for_and_nobody_new_is_granted(lptctl: Lptctl, socket_url: str) -> None:
    with blocking.open_port(socket_url, client="the owner") as owner, blocking.open_port(socket_url) as other:
        owner.allocate()
        refused = lptctl("drain", "--timeout", "0", "--", "true", url=socket_url)
        assert refused == (4, "", "lptctl: still owned: LPT1 (the owner); wait longer with --timeout\n")
        with started("drain", "--", "true", url=socket_url) as process:
            assert process.stderr is not None
            assert read_line(process.stderr) == "lptctl: waiting for LPT1 (the owner)"
            assert "draining    nobody new is granted" in lptctl("status", url=socket_url).out
            assert other.try_allocate() is None
            owner.free()
            assert finish(process).code == 0
        wait_until(lambda: not other.status()["draining"])
        assert other.try_allocate() is not None


def test_it_is_for_administrators(lptctl: Lptctl, url: str) -> None:
    result = lptctl("drain", "--", "true", url=url)
    assert result.code == 1
    assert result.err.startswith("lptctl: the daemon refused: STATUS_ACCESS_DENIED: ")
