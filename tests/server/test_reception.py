"""From an accepted connection to a session: real sockets on loopback, whose addresses 127.0.0.2 and on are "others"."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
import trio

from lpt_service.config import TlsConfig
from lpt_service.server import reception as module
from lpt_service.server import stream, tls_gate
from lpt_service.server.admission import Admission
from lpt_service.server.audit import Audit
from lpt_service.server.identity import Origin
from lpt_service.server.listeners import Listener
from lpt_service.server.reception import Reception
from lpt_service.server.strangers import StrangerLog
from lpt_service.server.stream import Stream
from lpt_service.server.tls_gate import TlsGate, load_context
from tests.certificates import CLIENT, client_context, section
from tests.server.fakes import BOUND_S, VirtualClock, config, until

ELSEWHERE = "127.0.0.2"


class Trail:
    """What the audit was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def refused(self, why: str, **fields: Any) -> None:
        self.lines.append((why, fields))


class Door:
    """A reception and its listener. `served`: those whose session has begun; each counts until `leave`."""

    def __init__(self, nursery: trio.Nursery, certificates: Path | None = None, **limits: Any) -> None:
        self.served: list[tuple[Stream, Origin]] = []
        self.trail = Trail()
        self.admission = Admission(config(limits=limits), {})
        strangers = StrangerLog(VirtualClock())
        gate = TlsGate(strangers)
        if certificates is not None:
            gate.context = load_context(TlsConfig(**section(certificates, client_certificate="optional")))
        self.reception = Reception(self.admission, gate, self._serve, cast(Audit, self.trail), strangers)
        self.reception.nursery = nursery
        self.reception.dead_peer_s = 15
        self.listener = Listener(socket.create_server(("127.0.0.1", 0)), is_tls=certificates is not None)

    def _serve(self, stream: Stream, origin: Origin) -> None:
        self.admission.count(origin.host)
        self.served.append((stream, origin))

    def leave(self, index: int = 0) -> None:
        stream, origin = self.served.pop(index)
        stream.close()
        self.admission.discount(origin.host)

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        """Somebody connects from `host`; the kernel answers."""
        client = socket.socket()
        client.settimeout(BOUND_S)
        client.bind((host, 0))
        client.connect(self.listener.socket.getsockname())
        return client

    async def accept(self) -> None:
        """Receive the next who has connected."""
        await trio.lowlevel.wait_readable(self.listener.socket)
        self.reception.receive(self.listener, self.listener.socket.accept()[0])

    async def come(self, host: str = "127.0.0.1") -> socket.socket:
        client = self.connect(host)
        await self.accept()
        return client

    @property
    def counted(self) -> Counter[str]:
        return self.admission._per_host


Open = Callable[..., Door]


@pytest.fixture
async def doors(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    monkeypatch.setattr(tls_gate, "HANDSHAKE_TIMEOUT_S", BOUND_S)
    doors: list[Door] = []

    def open_door(certificates: Path | None = None, **limits: Any) -> Door:
        doors.append(Door(nursery, certificates, **limits))
        return doors[-1]

    yield open_door
    for door in doors:
        while door.served:
            door.leave()
        door.listener.close()


async def rest(client: socket.socket) -> bytes:
    """Everything up to the end of the stream; a cut counts as the end. The client is closed then."""

    def read() -> bytes:
        data = b""
        with client:
            try:
                while chunk := client.recv(4096):
                    data += chunk
            except ConnectionResetError:
                pass
        return data

    return await trio.to_thread.run_sync(read)


def closing(data: bytes) -> str:
    """The reason of the one frame, `closing`."""
    kind, name, (reason,) = msgpack.unpackb(data)
    assert (kind, name) == (2, "closing")
    return str(reason)


async def test_who_may_come_in_is_served(doors: Open) -> None:
    door = doors()
    with await door.come() as client:
        ((_, origin),) = door.served
        assert origin.peer == f"127.0.0.1:{client.getsockname()[1]}"
        assert origin.is_private
    assert door.trail.lines == []


async def test_who_may_not_is_told_why_and_it_is_noted(doors: Open, caplog: pytest.LogCaptureFixture) -> None:
    door = doors()
    door.listener.allow_from = ("127.0.0.1", "::1")
    client = await door.come(ELSEWHERE)
    port = client.getsockname()[1]
    assert closing(await rest(client)) == f"connections from {ELSEWHERE} are not allowed here"
    fields = {"identity": "anonymous", "peer": f"{ELSEWHERE}:{port}"}
    assert door.trail.lines == [(f"connection: connections from {ELSEWHERE} are not allowed here", fields)]
    said = f"refused a connection from {ELSEWHERE}:{port}: connections from {ELSEWHERE} are not allowed here"
    assert said in caplog.messages
    assert (door.served, door.counted.total()) == ([], 0)
    with await door.come():
        assert len(door.served) == 1


async def test_it_is_told_though_it_speaks_first(doors: Open) -> None:
    """Closing with unread input would reset the connection, and take the reason with it."""
    door = doors()
    door.listener.allow_from = ()
    client = door.connect()
    client.sendall(b"\x94\x00\x01\xa5hello\x91\x81\xa8protocol\x01" * 1000)
    await door.accept()
    assert closing(await rest(client)) == "connections from 127.0.0.1 are not allowed here"


async def test_the_limit_of_one_address_disturbs_no_other(doors: Open) -> None:
    door = doors(max_connections_per_address=2)
    first, second, third = [await door.come() for _ in range(3)]
    assert closing(await rest(third)) == "127.0.0.1 has as many connections as one address may have"
    other = await door.come(ELSEWHERE)
    assert [origin.host for _, origin in door.served] == ["127.0.0.1", "127.0.0.1", ELSEWHERE]
    door.leave()
    fourth = await door.come()
    assert len(door.served) == 3
    for client in (first, second, other, fourth):
        client.close()


async def test_the_limit_of_all(doors: Open) -> None:
    door = doors(max_connections=2)
    with await door.come(), await door.come(ELSEWHERE):
        assert closing(await rest(await door.come("127.0.0.3"))) == "there are as many connections as there may be"
        door.leave()
        with await door.come("127.0.0.3"):
            assert len(door.served) == 2


async def test_many_who_are_turned_away_and_stay_do_not_pile_up(doors: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number they are cut off, without being told; when those have left, the next is told again."""
    monkeypatch.setattr(module, "TURNED_AWAY_MAX", 2)
    monkeypatch.setattr(stream, "_DISCARD_S", BOUND_S)  # they stay until they leave
    door = doors()
    door.listener.allow_from = ()
    lingering = [await door.come(), await door.come()]
    assert await rest(await door.come()) == b""
    for client in lingering:
        assert closing(await rest(client))
    await until(lambda: door.reception._turned_away == 0)
    assert closing(await rest(await door.come()))
    assert len(door.trail.lines) == 4


async def test_who_is_gone_before_it_is_received(doors: Open) -> None:
    door = doors()
    for _ in range(10):
        client = door.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # reset
        await door.accept()
    # The one or the other: what the kernel says of a socket that was reset depends on how far the reset has come.
    assert len(door.served) + door.reception._strangers.left_silently == 10
    while door.served:
        door.leave()
    assert door.counted == Counter()


# TLS


async def shake_hands(client: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    return await trio.to_thread.run_sync(lambda: context.wrap_socket(client, server_hostname="localhost"))


async def test_a_certificate_becomes_the_identity(doors: Open, certificates: Path) -> None:
    door = doors(certificates)
    with await shake_hands(await door.come(), client_context(certificates, "client")):
        await until(lambda: bool(door.served))
        ((_, origin),) = door.served
        assert str(origin.identity) == f"cert:{CLIENT}"
        assert door.counted == {"127.0.0.1": 1}


async def test_a_handshake_counts_while_it_lasts(doors: Open, certificates: Path) -> None:
    door = doors(certificates, max_connections_per_address=2)
    clients = [door.connect() for _ in range(4)]
    accepted = []
    for _ in clients:
        await trio.lowlevel.wait_readable(door.listener.socket)
        accepted.append(door.listener.socket.accept()[0])
    for sock in accepted:  # in one turn, as a listener does with those who are there
        door.reception.receive(door.listener, sock)
    assert door.counted == {"127.0.0.1": 2}
    assert [why for why, _ in door.trail.lines] == [
        "connection: 127.0.0.1 has as many connections as one address may have"
    ] * 2
    for client in clients[2:]:
        assert await rest(client) == module.ACCESS_DENIED
    clients[0].close()
    await until(lambda: door.counted.total() == 1)
    with await shake_hands(await door.come(), client_context(certificates)):
        await until(lambda: bool(door.served))
        assert door.counted == {"127.0.0.1": 2}
    clients[1].close()


async def test_handshakes_that_fail_count_no_longer(
    doors: Open, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    door = doors(certificates)
    with caplog.at_level(logging.CRITICAL):
        for number in range(40):
            client = await door.come(f"127.0.0.{number % 5 + 1}")
            if number % 4 == 0:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                await rest(client)
            elif number % 4 == 1:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            elif number % 4 == 2:
                unbelieving = client_context(certificates, ca="other/ca")
                with pytest.raises(ssl.SSLError):
                    await shake_hands(client, unbelieving)
                client.close()
            else:
                client.sendall(b"\x16\x03\x01")
                client.close()
        await until(lambda: door.counted == Counter())
    assert door.served == []


async def test_who_is_led_through_while_the_daemon_stops_is_not_served(doors: Open, certificates: Path) -> None:
    door = doors(certificates)
    client = await door.come()
    door.reception.is_closed = True
    tls = await shake_hands(client, client_context(certificates))
    await until(lambda: door.counted == Counter())
    assert await rest(tls) == b""
    assert door.served == []
