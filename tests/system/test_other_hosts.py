"""Who comes from another machine: a namespace of the network, at the other end of a real link.

Needs root and `ip` (iproute2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import section
from tests.e2e.client import RawClient
from tests.e2e.daemons import DaemonProcess, eventually, serving
from tests.system.link import CLIENT_HOST, DAEMON_HOST, Link, linked

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SECRET = "correct horse"
TOKEN = f'[[token]]\nname = "lab"\nsha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"\n'


@pytest.fixture
def link() -> Iterator[Link]:
    with linked() as link:
        yield link


def told(link: Link, daemon: DaemonProcess, index: int, token: str = "", *ca: Path) -> list[Any]:
    """What somebody at the other end of the link is told at one of the daemon's addresses."""
    with link.start("tests.system.stranger", *map(str, daemon.addresses[index]), token, *map(str, ca)) as stranger:
        output, _ = stranger.communicate(timeout=240)
    assert stranger.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


def refusal(messages: list[Any]) -> str:
    """The detail of STATUS_ACCESS_DENIED, after which the conversation is over."""
    answer, closing = messages
    assert answer[2][1] == "STATUS_ACCESS_DENIED"
    assert closing[:2] == [2, "closing"]
    detail: str = answer[2][2]
    return detail


def test_a_token_is_not_taken_over_plain_tcp_from_another_machine(
    link: Link, tmp_path: Path, certificates: Path
) -> None:
    """Neither a good one nor a bad one; over TLS it is, and from this machine at its own address."""
    tls = "".join(f"{key} = {json.dumps(value)}\n" for key, value in section(certificates).items())
    config = tmp_path / "lptd.toml"
    config.write_text(
        f'[server]\nlisten = ["lpt://{DAEMON_HOST}:0", "lpts://{DAEMON_HOST}:0", "lpt://127.0.0.1:0"]\n[tls]\n{tls}{TOKEN}'
    )
    with serving("--config", str(config), lines=3) as daemon:
        said = "token: not over plain TCP from another machine; use lpts://"
        assert refusal(told(link, daemon, 0, SECRET)) == said
        assert refusal(told(link, daemon, 0, "wrong")) == said
        assert refusal(told(link, daemon, 0)) == "token: missing or wrong"
        ca = certificates / "ca.pem"
        assert told(link, daemon, 1, SECRET, ca) == [["welcome", "LPT1"]]
        assert refusal(told(link, daemon, 1, "wrong", ca)) == "token: missing or wrong"
        RawClient(daemon.addresses[2]).hello(token=SECRET).close()
        assert SECRET not in daemon.log()


def test_networks(link: Link, tmp_path: Path) -> None:
    config = tmp_path / "lptd.toml"
    config.write_text(
        "[server]\nlisten = [\n"
        f'{{url = "lpt://{DAEMON_HOST}:0", insecure = true, allow_from = ["10.0.0.0/8", "::/0", "{DAEMON_HOST}"]}},\n'
        f'{{url = "lpt://{DAEMON_HOST}:0", insecure = true, allow_from = ["{CLIENT_HOST}"]}},\n'
        "]\n"
    )
    with serving("--config", str(config), lines=2) as daemon:
        said = f"connections from {CLIENT_HOST} are not allowed here"
        assert told(link, daemon, 0) == [[2, "closing", [said]]]
        assert told(link, daemon, 1) == [["welcome", "LPT1"]]
        eventually(lambda: f"refused a connection from {CLIENT_HOST}:" in daemon.log())
        RawClient(daemon.addresses[0]).hello().close()  # from this machine, whose address is DAEMON_HOST there


def test_a_wide_listener_tells_near_from_far(link: Link, tmp_path: Path) -> None:
    """0.0.0.0: the same socket, and only who comes from this machine may show its token."""
    config = tmp_path / "lptd.toml"
    config.write_text(f'[server]\nlisten = ["lpt://0.0.0.0:0"]\n{TOKEN}')
    with serving("--config", str(config)) as daemon:
        tcp_port = int(daemon.addresses[0][1])
        RawClient(("127.0.0.1", tcp_port)).hello(token=SECRET).close()
        daemon.addresses[0] = (DAEMON_HOST, tcp_port)
        assert refusal(told(link, daemon, 0, SECRET)).startswith("token: not over plain TCP")
        eventually(lambda: daemon.log().count("(anonymous): ended") == 1)
