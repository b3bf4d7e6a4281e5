"""Each configuration of the pages starts as the pages say: behind lptd.socket, with its addresses as they stand there.

What is not as it stands there: paths are those below a folder of the test's own, where certificates are and no device.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.markdown import PROJECT, blocks, pages, read
from tests.e2e.client import RawClient
from tests.e2e.daemons import DaemonProcess
from tests.system.own_network import in_own_network

pytestmark = pytest.mark.system

UNIT = read(PROJECT / "deploy/systemd/lptd.socket")
EXAMPLE = read(PROJECT / "deploy/config.toml")
IN_PLACE_OF_A_URL = re.compile(r"^# +(\{url = .+\})$", re.MULTILINE)
CERTIFICATES = {"certificate": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
SERVE = re.compile(r"^ *(lptd serve .+?)(?: &)?(?: +#.*)?$", re.MULTILINE)


class SetUp(NamedTuple):
    """A configuration, and what the socket unit listens on: ListenStream= of it."""

    name: str
    config: str
    streams: tuple[str, ...]


def streams(*units: str) -> tuple[str, ...]:
    """What a unit and what changes it (`systemctl edit`) listen on: nothing after ListenStream= forgets those above."""
    found: list[str] = []
    for stream in re.findall(r"^ListenStream=(.*)$", "\n".join(units), re.MULTILINE):
        found = [*found, stream] if stream else []
    return tuple(found)


def set_ups() -> Iterator[SetUp]:
    """Those of the pages, the socket unit changed as the same section of the page says; and the example's."""
    for page in pages():
        for number, block in enumerate(blocks(read(page), "toml")):
            beside = [each.text for each in blocks(read(page), "sh") if each.heading == block.heading]
            changes = re.findall(r"printf '(\[Socket\].*?)'", "".join(beside))
            unit = streams(UNIT, *(each.replace("\\n", "\n") for each in changes))
            yield SetUp(f"{page.stem}-{number}-{block.heading}", block.text, unit)
    yield SetUp("config.toml", EXAMPLE, streams(UNIT))
    full = re.sub(r"^#(?=\[|\w+ = )", "", EXAMPLE, flags=re.MULTILINE)
    (table,) = IN_PLACE_OF_A_URL.findall(EXAMPLE)
    yield SetUp(
        "config.toml-all-keys",
        re.sub(r"^(listen = \[.*)\]$", rf"\1, {table}]", full, flags=re.MULTILINE),
        streams(UNIT),
    )


SET_UPS = {each.name: each for each in set_ups()}


def below(folder: Path, text: str) -> str:
    """`text` with its absolute paths below a folder, and with certificates if it does not name any."""
    text = re.sub(r'(?<=")(lpt\+unix://)?/(?=(?:run|etc|var|dev)/)', rf"\1{folder}/", text)
    if "\ncertificate = " in text:
        return text
    named = "".join(f'{key} = "{folder}/etc/lptd/tls/{name}"\n' for key, name in CERTIFICATES.items())
    return text.replace("[tls]\n", f"[tls]\n{named}") if "[tls]\n" in text else f"{text}\n[tls]\n{named}"


def listen(stream: str, folder: Path) -> socket.socket:
    """A socket as systemd opens it."""
    if stream.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"{folder}{stream}")
        sock.listen()
        return sock
    host, _, port = stream.rpartition(":")
    if host:
        return socket.create_server((host, int(port)))
    return socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)


def is_of(stream: str, url: str, folder: Path) -> bool:
    """Whether a URL names a socket of the unit, which may be open at every address."""
    if stream.startswith("/"):
        return url == f"lpt+unix://{folder}{stream}"
    return url.endswith(f":{stream}" if stream.isdecimal() else f"//{stream}")


@pytest.fixture
def folder(certificates: Path) -> Iterator[Path]:
    """What stands for the root of the file system; its name is short, as a Unix socket's path must be."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tls = folder / "etc/lptd/tls"
        for each in (tls, folder / "run/lptd", folder / "var/lib/lptd"):
            each.mkdir(parents=True)
        for here in CERTIFICATES.values():
            shutil.copy(certificates / here, tls)
        yield folder


def started(*arguments: str, folder: Path, units: tuple[str, ...], urls: list[str], ports: int) -> None:
    """Have a daemon start, listen everywhere, answer, and stop."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(listen(stream, folder)) for stream in units]
        own = [url for url in urls if not any(is_of(stream, url, folder) for stream in units)]
        daemon = DaemonProcess(*arguments, sockets=sockets)
        stack.callback(daemon.kill)
        daemon.wait_until_ready((len(sockets) + len(own)) * ports)
        for url in own:
            assert [line for line in daemon.lines if line.startswith(f"listening on {url}")], daemon.lines
        if units:
            client = RawClient(f"{folder}/run/lptd/lptd.sock").hello(port=daemon.lines[0].rpartition("#")[2])
            assert client.call("status")["sessions"] == 1
            client.close()
        assert daemon.stop() == 0


@pytest.mark.parametrize("name", SET_UPS)
def test_a_configuration_starts_behind_the_socket_unit(name: str, folder: Path) -> None:
    set_up = SET_UPS[name]
    config = folder / "etc/lptd/config.toml"
    config.write_text(below(folder, set_up.config))
    values = tomllib.loads(config.read_text())
    urls = [item if isinstance(item, str) else item["url"] for item in values["server"]["listen"]]
    ports = len(values.get("port", [None]))

    def start() -> None:
        started("--config", str(config), folder=folder, units=set_up.streams, urls=urls, ports=ports)

    in_own_network(start)


COMMANDS = sorted({found for page in pages() for found in SERVE.findall(read(page)) if "--simulate" in found})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_starts(command: str, folder: Path) -> None:
    arguments = shlex.split(command)[2:]
    urls = [value for option, value in pairwise(arguments) if option == "--listen"] or ["lpt://127.0.0.1:5378"]

    def start() -> None:
        started(*arguments, folder=folder, units=(), urls=urls, ports=1)

    in_own_network(start)


def test_every_configuration_is_marked_as_one() -> None:
    for page in pages():
        for block in blocks(read(page)):
            if block.language != "toml":
                assert not re.search(r"^\[\[?(server|port|limits|tls|audit|token|role)\]", block.text, re.MULTILINE)
    assert {each.name.partition("-")[0] for each in SET_UPS.values()} == {"README", "operations", "config.toml"}
    assert len(COMMANDS) >= 2
    assert any("5378" in each.streams for each in SET_UPS.values())
