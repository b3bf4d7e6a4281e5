"""A client that is alive and does not read: what it holds stays its own for longer than `dead_peer_s`, its place in the
log is skipped and counted, and what ends it, if anything does, is told to it.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lpt_client import Interrupt, blocking, sockets
from tests.certificates import client_context, section
from tests.e2e.client import FREE, Account, RawClient
from tests.e2e.daemons import DaemonProcess, eventually, serving

DEAD_PEER_S = 1
UNREAD_REPLY_S = 3
NOT_READING_S = 1.5 * DEAD_PEER_S  # and well before the reason has waited for UNREAD_REPLY_S, too
PORTS = ("TCP", "UNIX", "TLS", "SDK")
SMALL_BYTES = 4096  # a receive buffer that is soon full
FIXED_BYTES = 65_536  # one that is soon emptied, too
ENOUGH = 3500  # entries of a log, of which the connections hold fewer


@pytest.fixture(scope="module")
def daemon(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    folder = tmp_path_factory.mktemp("not-reading")
    listen = ["lpt://127.0.0.1:0", f"lpt+unix://{folder}/lptd.sock", "lpts://127.0.0.1:0"]
    ports = (
        f'[[port]]\nname = "{name}"\nenable_connect_interrupt = true\ninterrupt_log_frames = 256\npulse_hz = 1000\n'
        for name in PORTS
    )
    tls = "".join(f"{name} = {json.dumps(value)}\n" for name, value in section(certificates).items())
    path = folder / "lptd.toml"
    path.write_text(
        f"[server]\nlisten = {json.dumps(listen)}\n"
        f"[limits]\ndead_peer_s = {DEAD_PEER_S}\nunread_reply_s = {UNREAD_REPLY_S}\n[tls]\n{tls}{''.join(ports)}"
    )
    with serving("--config", str(path), lines=len(listen) * len(PORTS)) as daemon:
        yield daemon


@pytest.fixture
def enter(daemon: DaemonProcess, certificates: Path) -> Iterator[Callable[[str], RawClient]]:
    """Makes clients, over the transport for which their port is called."""
    addresses = dict(zip(("TCP", "UNIX", "TLS"), daemon.addresses[:: len(PORTS)], strict=True))
    with ExitStack() as stack:

        def enter(name: str) -> RawClient:
            client = RawClient(addresses[name])
            stack.callback(client.close)
            if name == "TLS":
                client.socket = client_context(certificates).wrap_socket(client.socket, server_hostname="localhost")
            return client.hello(port=name)

        yield enter


def shrink(sock: socket.socket) -> None:
    """Have its receive buffer full soon."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)


def test_semantic_02_an_owner_that_reads_nothing_for_long_goes_on_where_it_was(
    daemon: DaemonProcess, enter: Callable[[str], RawClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over each transport, and with the SDK's blocking client, which promises it: all at the same time."""
    clients = [enter(name) for name in ("TCP", "UNIX", "TLS")]
    first_seqs = []
    for client in clients:
        shrink(client.socket)
        client.allocate()
        first_seqs.append(client.connect_interrupt())
    witness = daemon.connect(port="SDK")
    witness.connect_interrupt()
    began = time.monotonic()
    monkeypatch.setattr(sockets, "set_options", shrink)
    address = daemon.addresses[0]
    with blocking.open_port(f"lpt://{address[0]}:{address[1]}/SDK") as port, port.allocated(timeout=0) as grant:
        with port.connect_interrupt() as interrupts:
            for _ in range(ENOUGH):
                witness.notification("interrupt")
            assert time.monotonic() - began > 2 * DEAD_PEER_S
            assert port.status()["owner"]["grant"] == grant
            port.pulse(1, width_us=1)
        heard = sum(event.count for event in interrupts if isinstance(event, Interrupt))
        assert heard == interrupts.received
        assert interrupts.first_seq is not None
        assert interrupts.received + interrupts.lost == (interrupts.next_seq or 0) - interrupts.first_seq
        assert interrupts.lost, "it was not behind: nothing is shown"
    for client, first_seq in zip(clients, first_seqs, strict=True):
        end_seq = client.disconnect_interrupt()
        account = Account().add(client.heard())
        assert account.received + account.lost == end_seq - first_seq
        assert account.overruns, "it was not behind: nothing is shown"
        assert client.ioctl(FREE) == b""
    witness.close()
    assert "cannot be reached" not in daemon.log()


def ask_without_reading(client: RawClient) -> list[int]:
    """More than the daemon answers while nobody reads; as long as its end takes it."""
    # A size of its own, or else the kernel may let the buffer grow until all answers have room in it.
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FIXED_BYTES)
    asked: list[int] = []
    while len(asked) < 3000 and select.select([], [client.socket], [], 0.2)[1]:
        asked.append(client.request("status"))
    return asked


def test_a_reply_that_nobody_reads_ends_its_session_and_the_reason_waits_for_it(
    daemon: DaemonProcess, enter: Callable[[str], RawClient]
) -> None:
    clients = {name: enter(name) for name in ("TCP", "UNIX", "TLS")}
    witnesses = [enter(name) for name in clients]
    asked = {}
    for name, client in clients.items():
        client.allocate()
        asked[name] = ask_without_reading(client)
    eventually(lambda: all(witness.call("status")["owner"] is None for witness in witnesses))
    time.sleep(NOT_READING_S)
    for name, client in clients.items():
        *answers, last = client.rest()
        assert [msgid for _, msgid, *_ in answers] == asked[name][: len(answers)]
        assert 0 < len(answers) < len(asked[name]), "it was not read from while its replies waited"
        assert last == [2, "closing", ["its replies were not read for 3 s"]]
    assert daemon.log().count("closing: its replies were not read for 3 s") == len(clients)
