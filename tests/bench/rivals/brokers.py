"""mosquitto, redis and nats: started on a free port, spoken to in their own protocols by ready-made frames.

Of a message's payload every broker is given as many bytes as an interrupt of ours has.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.frames import FRAME_BYTES, dial
from tests.bench.processes import running

_PAYLOAD = bytes(FRAME_BYTES)


@dataclass(frozen=True)
class Broker:
    """A publish/subscribe server. `message` is what a publisher sends, `delivered_bytes` what a subscriber gets of it.

    `command(port, folder)` starts it; it is ready when it prints `ready`.
    """

    name: str
    program: str
    command: Callable[[str, int, str], list[str]]
    ready: str
    subscribe: Callable[[socket.socket, int], None]
    publisher: Callable[[socket.socket], None]
    message: bytes
    delivered_bytes: int

    @contextmanager
    def serving(self, core: int) -> Iterator[tuple[str, int] | None]:
        """Start it on `core`; gives its address, or None where it is not installed."""
        path = shutil.which(self.program, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if path is None:
            yield None
            return
        port = _free_port()
        with (
            tempfile.TemporaryDirectory() as folder,
            running(self.command(path, port, folder), core, self.ready),
        ):
            yield "127.0.0.1", port


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _expect(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            raise ConnectionError("the broker has closed the connection")
        data += chunk
    return data


# mosquitto: MQTT 3.1.1, QoS 0


def _mosquitto(program: str, port: int, folder: str) -> list[str]:
    config = Path(folder, "mosquitto.conf")
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nuser root\n"
        "log_type information\nconnection_messages false\nmax_queued_messages 0\nmax_queued_bytes 0\n"
    )
    return [program, "-c", str(config)]


def _mqtt_connect(sock: socket.socket) -> None:
    sock.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
    assert _expect(sock, 4)[0] == 0x20


def _mqtt_subscribe(sock: socket.socket, number: int) -> None:
    _mqtt_connect(sock)
    sock.sendall(b"\x82\x06\x00\x01\x00\x01i\x00")
    assert _expect(sock, 5)[0] == 0x90


_MQTT_MESSAGE = b"\x30" + bytes((3 + FRAME_BYTES,)) + b"\x00\x01i" + _PAYLOAD


# redis: RESP2


def _redis(program: str, port: int, folder: str) -> list[str]:
    options = {
        "port": f"{port}",
        "bind": "127.0.0.1",
        "save": "",
        "appendonly": "no",
        "dir": folder,
        "client-output-buffer-limit": "pubsub 0 0 0",
    }
    return [program, *(word for name, value in options.items() for word in (f"--{name}", value))]


def _redis_subscribe(sock: socket.socket, number: int) -> None:
    sock.sendall(b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\ni\r\n")
    answer = b"*3\r\n$9\r\nsubscribe\r\n$1\r\ni\r\n:1\r\n"
    assert _expect(sock, len(answer)) == answer


_BULK = b"$%d\r\n%b\r\n" % (FRAME_BYTES, _PAYLOAD)
_REDIS_MESSAGE = b"*3\r\n$7\r\nPUBLISH\r\n$1\r\ni\r\n" + _BULK
_REDIS_DELIVERED = len(b"*3\r\n$7\r\nmessage\r\n$1\r\ni\r\n" + _BULK)


# nats


def _nats(program: str, port: int, folder: str) -> list[str]:
    return [program, "-a", "127.0.0.1", "-p", str(port)]


def _nats_connect(sock: socket.socket) -> None:
    while not sock.recv(65536).endswith(b"\r\n"):  # INFO
        pass
    sock.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
    assert _expect(sock, 6) == b"PONG\r\n"


def _nats_subscribe(sock: socket.socket, number: int) -> None:
    _nats_connect(sock)
    sock.sendall(b"SUB i 1\r\nPING\r\n")
    assert _expect(sock, 6) == b"PONG\r\n"


_NATS_MESSAGE = b"PUB i %d\r\n%b\r\n" % (FRAME_BYTES, _PAYLOAD)
_NATS_DELIVERED = len(b"MSG i 1 %d\r\n%b\r\n" % (FRAME_BYTES, _PAYLOAD))


BROKERS = (
    Broker(
        "mosquitto",
        "mosquitto",
        _mosquitto,
        r"mosquitto version .* running",
        _mqtt_subscribe,
        _mqtt_connect,
        _MQTT_MESSAGE,
        len(_MQTT_MESSAGE),
    ),
    Broker(
        "redis pub/sub",
        "redis-server",
        _redis,
        r"Ready to accept connections",
        _redis_subscribe,
        lambda sock: None,
        _REDIS_MESSAGE,
        _REDIS_DELIVERED,
    ),
    Broker(
        "nats",
        "nats-server",
        _nats,
        r"Server is ready",
        _nats_subscribe,
        _nats_connect,
        _NATS_MESSAGE,
        _NATS_DELIVERED,
    ),
)


def subscribers(broker: Broker, address: tuple[str, int], count: int) -> list[socket.socket]:
    """Connections that get every message."""
    sockets = []
    for number in range(count):
        sock = dial(address)
        broker.subscribe(sock, number)
        sockets.append(sock)
    return sockets


def publisher(broker: Broker, address: tuple[str, int]) -> socket.socket:
    """A connection to publish on. Only redis answers; what it answers is thrown away."""
    sock = dial(address)
    broker.publisher(sock)
    return sock
