"""Bytes that are no conversation: what is before them is answered, the reason told, the connection closed.

Half a frame and then silence needs thirty seconds: tests/server/test_session.py has it, on a virtual clock.
"""

from __future__ import annotations

import random
import socket
import struct

import msgpack
import pytest

from tests.e2e.client import ALLOCATE, INTERNAL, READ_PORT_UCHAR, RawClient, check_closing, routine
from tests.e2e.conftest import Connect, Witness
from tests.e2e.daemons import DaemonProcess, eventually

PING = msgpack.packb([0, 900, "ping", []])


# A request whose params follow: [0, 901, "ping", …
HEAD = b"\x94\x00\xcd\x03\x85\xa4ping"


def nested(levels: int) -> bytes:
    """A request with so many levels of arrays, the frame itself being the first."""
    return HEAD + b"\x91" * (levels - 2) + b"\x90"


def of_bytes(length: int) -> bytes:
    """A request of exactly so many bytes."""
    filler = length - len(HEAD) - 6
    return HEAD + b"\x91\xc6" + filler.to_bytes(4, "big") + b"x" * filler


VIOLATIONS = {
    "not MessagePack: 0xc1": b"\xc1",
    "not MessagePack: 0xc1 inside": b"\x94\x00\x01\xa4ping\x91\xc1",
    "not MessagePack: HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "not MessagePack: TLS": bytes.fromhex("1603010200010001fc0303"),
    "not a frame: nil": b"\xc0",
    "not a frame: an integer": b"\x2a",
    "not a frame: text": b"\xa4ping",
    "not a frame: a map": b"\x81\x00\x01",
    "not a frame: no items": b"\x90",
    "not a frame: kind 3": b"\x94\x03\x01\xa4ping\x90",
    "not a frame: kind -1": b"\x94\xff\x01\xa4ping\x90",
    "not a frame: kind true": b"\x94\xc3\x01\xa4ping\x90",
    "not a frame: kind 0.0": b"\x94\xca\x00\x00\x00\x00\x01\xa4ping\x90",
    "not a frame: a request of three": b"\x93\x00\x01\xa4ping",
    "not a frame: a request of five": b"\x95\x00\x01\xa4ping\x90\x90",
    "not a frame: a response of three": b"\x93\x01\x01\xc0",
    "not a frame: a notification of two": b"\x92\x02\xa4ping",
    "not a frame: a notification of four": b"\x94\x02\xa4ping\x90\x90",
    "not a frame: msgid -1": b"\x94\x00\xff\xa4ping\x90",
    "not a frame: msgid of 33 bits": b"\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa4ping\x90",
    "not a frame: msgid text": b"\x94\x00\xa11\xa4ping\x90",
    "not a frame: msgid nil": b"\x94\x00\xc0\xa4ping\x90",
    "not a frame: method 1": b"\x94\x00\x01\x01\x90",
    "not a frame: method nil": b"\x94\x00\x01\xc0\x90",
    "not a frame: method no UTF-8": b"\x94\x00\x01\xc4\x01\xff\x90",
    "not UTF-8": b"\x94\x00\x01\xa4\xff\xfe\xfd\xfc\x90",
    "an extension": b"\x94\x00\x01\xa4ping\x91\xd4\x05\x00",
    "a timestamp": b"\x94\x00\x01\xa4ping\x91\xd6\xff\x00\x00\x00\x00",
    "array of 65": b"\x94\x00\x01\xa4ping\xdc\x00\x41" + b"\x00" * 65,
    "array of 2^32-1": b"\x94\x00\x01\xa4ping\xdd\xff\xff\xff\xff",
    "map of 65": b"\x94\x00\x01\xa4ping\x91\xde\x00\x41" + b"\x00\x00" * 65,
    "map of 2^32-1": b"\x94\x00\x01\xa4ping\x91\xdf\xff\xff\xff\xff",
    "string of 1025": b"\x94\x00\x01\xa4ping\x91\xda\x04\x01" + b"x" * 1025,
    "string of 2^32-1": b"\x94\x00\x01\xa4ping\x91\xdb\xff\xff\xff\xff",
    "method of 1025": b"\x94\x00\x01\xda\x04\x01" + b"x" * 1025 + b"\x90",
    "bin of 4 GiB": b"\x94\x00\x01\xa4ping\x91\xc6\xff\xff\xff\xff",
    "nested 9": nested(9),
    "nested 1000": b"\x91" * 1000,
    "nested maps": b"\x81\x00" * 1000,
    "memory bomb": b"\xdc\xff\xff" * 500,
    "frame of 64 KiB and one byte": of_bytes(65_537),
}


@pytest.mark.parametrize("bad", VIOLATIONS.values(), ids=VIOLATIONS)
def test_row_not_a_frame_or_a_limit_passed(connect: Connect, witness: Witness, bad: bytes) -> None:
    """After hello: frames before it are answered, pending ones cancelled; one `closing`; the end."""
    owner, client = connect(), connect()
    owner.allocate()
    waiting = client.control(ALLOCATE)
    client.socket.sendall(PING + bad + PING)
    check_closing(client, answered=[900, waiting])
    assert owner.call("status")["waiting"] == 0
    owner.close()


@pytest.mark.parametrize("bad", VIOLATIONS.values(), ids=VIOLATIONS)
def test_row_not_a_frame_or_a_limit_passed_before_hello(daemon: DaemonProcess, bad: bytes) -> None:
    client = RawClient(daemon.address)
    client.socket.sendall(PING + bad)
    check_closing(client, answered=[900])
    client.close()


@pytest.mark.parametrize("bad", [VIOLATIONS["not MessagePack: 0xc1 inside"], VIOLATIONS["nested 9"]])
def test_the_same_a_byte_at_a_time(connect: Connect, witness: Witness, bad: bytes) -> None:
    client = connect()
    for byte in PING + bad:
        try:
            client.socket.sendall(bytes((byte,)))
        except OSError:
            break
    check_closing(client, answered=[900])


@pytest.mark.parametrize("chunk", [65_536, 1000])
def test_what_is_just_within_the_limits_is_answered(connect: Connect, chunk: int) -> None:
    client = connect()
    within = {
        "frame of 64 KiB": of_bytes(65_536),
        "nested 8": nested(8),
        "array of 64": HEAD + b"\xdc\x00\x40" + b"\x00" * 64,
        "map of 64": HEAD + b"\x91\xde\x00\x40" + b"".join(bytes((key, 0)) for key in range(64)),
        "string of 1024": HEAD[:5] + b"\xda\x04\x00" + b"x" * 1024 + b"\x90",
    }
    for frame in within.values():
        for start in range(0, len(frame), chunk):
            client.socket.sendall(frame[start : start + chunk])
        assert client.refusal(901) == "STATUS_INVALID_PARAMETER"


def test_before_hello_a_frame_has_4_kib(daemon: DaemonProcess) -> None:
    hello = {"protocol": 1, "client": "c" * 1024, "token": "t" * 1024, "resume": "r" * 1024, "x": ["y" * 900]}
    size = len(msgpack.packb([0, 1, "hello", [hello]]))
    assert 4000 < size <= 4096
    client = RawClient(daemon.address).hello(**hello)
    client.close()
    client = RawClient(daemon.address)
    hello["x"] = ["y" * 900, "z" * (4097 - size)]
    client.request("hello", hello)
    check_closing(client, answered=[])
    client.close()


def test_any_legal_encoding_of_an_integer_is_accepted(connect: Connect) -> None:
    client = connect()
    code = struct.pack(">BQ", 0xCF, READ_PORT_UCHAR)
    method = b"\xd9" + bytes((len(INTERNAL),)) + INTERNAL.encode()
    frame = b"\xdd\x00\x00\x00\x04\xd3" + b"\x00" * 8 + b"\xce\x00\x00\x00\x07" + method
    frame += b"\xdc\x00\x03" + code + b"\xc6\x00\x00\x00\x01\x00" + b"\xd1\x00\x01"
    client.socket.sendall(frame)
    assert len(client.output(7)) == 1


def test_a_method_may_be_bin(connect: Connect) -> None:
    client = connect()
    client.send([0, 5, b"ping", []])
    assert len(client.reply(5)) == 2


@pytest.mark.parametrize("cut", [1, 5, 20])
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_half_a_frame_then_close(daemon: DaemonProcess, connect: Connect, witness: Witness, cut: int, how: str) -> None:
    """What the session held is released; nobody else notices."""
    client, waiter = connect(), connect()
    client.allocate()
    client.connect_interrupt()
    waiting = waiter.control(ALLOCATE)
    waiter.notification("queued")
    client.socket.sendall(msgpack.packb([0, 1, INTERNAL, [ALLOCATE, routine(), 0]])[:cut])
    if how == "half-close":
        client.socket.shutdown(socket.SHUT_WR)
        client.rest()
    elif how == "reset":
        client.reset()
    else:
        client.close()
    assert waiter.output(waiting) == b""
    waiter.close()


def test_random_bytes_end_one_conversation_each(daemon: DaemonProcess, witness: Witness) -> None:
    """Whatever they are: `closing` and the end, or a wait for more; the daemon goes on."""
    chance = random.Random(5)
    clients = []
    for _ in range(60):
        client = RawClient(daemon.address).hello()
        client.socket.sendall(chance.randbytes(chance.randrange(1, 3000)))
        clients.append(client)
    for client in clients:
        client.socket.shutdown(socket.SHUT_WR)
        rest = client.rest()
        assert rest == [] or rest[-1][:2] == [2, "closing"]
        client.close()


def test_a_hundred_hostile_connections_take_little_memory(daemon: DaemonProcess, witness: Witness) -> None:
    """The largest frame that is allowed, all but its last byte; and what declares much more than it is."""
    before = daemon.rss_bytes()
    clients = []
    for number in range(100):
        client = RawClient(daemon.address).hello()
        client.socket.sendall(of_bytes(60_000)[:-1] if number % 2 else VIOLATIONS["memory bomb"])
        clients.append(client)
    eventually(lambda: bool(daemon.status()["sessions"] == 50 + 2))  # the bombs are gone
    assert daemon.rss_bytes() - before < 24 * 1024 * 1024
    for client in clients:
        client.reset()
    eventually(lambda: bool(daemon.status()["sessions"] == 2))
