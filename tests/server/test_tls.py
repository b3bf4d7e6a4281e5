"""TLS on a connection in memory: the handshake and its failures, records in pieces, nothing lost when it is full."""

from __future__ import annotations

import random
import ssl
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lpt_service.config import TlsConfig
from lpt_service.protocol.codec import INTERRUPT_FRAME_BYTES
from lpt_service.server.tls import RECORD_BYTES, TlsFailure, TlsStream, identity_of
from lpt_service.server.tls_gate import load_context
from tests.certificates import CLIENT, client_context, section
from tests.server.fakes import MemoryStream
from tests.server.tls_client import TlsClient


def accepting(folder: Path, name: str = "server", **keys: Any) -> ssl.SSLContext:
    return load_context(TlsConfig(**section(folder, name, **keys)))


async def agree(stream: TlsStream, client: TlsClient) -> None:
    """The whole handshake, from both ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.handshake)
        while not client.shake_hands():
            await wait_all_tasks_blocked()


async def connected(folder: Path, room: int = 1 << 30) -> tuple[TlsStream, TlsClient]:
    raw = MemoryStream()
    stream, client = TlsStream(raw, accepting(folder)), TlsClient(raw, client_context(folder))
    await agree(stream, client)
    raw.room = room
    return stream, client


async def failure(stream: TlsStream, client: TlsClient | None = None) -> tuple[str, str]:
    """Why no TLS came about: as the daemon says, and as OpenSSL tells the client."""
    said: list[str] = []
    heard = ""

    async def shake_hands() -> None:
        with pytest.raises(TlsFailure) as caught:
            await stream.handshake()
        said.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake_hands)
        try:
            while client is not None and not said:
                if client.shake_hands():
                    await wait_all_tasks_blocked()
                    client.read()
                await wait_all_tasks_blocked()
            if client is not None:
                client.shake_hands()
                client.read()
        except ssl.SSLError as exc:
            heard = exc.reason or ""
    return said[0], heard


# The handshake


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 20])
async def test_both_ends_agree_and_understand_each_other(certificates: Path, chunk_bytes: int) -> None:
    raw = MemoryStream()
    stream = TlsStream(raw, accepting(certificates))
    client = TlsClient(raw, client_context(certificates), chunk_bytes)
    await agree(stream, client)
    assert client.tls.version() == "TLSv1.3"
    assert stream.identity is None
    client.write(b"request" * 1000)
    received = b""
    while len(received) < 7000:
        received += await stream.receive()
    assert received == b"request" * 1000
    assert stream.try_receive() is None
    assert stream.try_send(b"reply") == 5
    assert client.read() == b"reply"


@pytest.mark.parametrize("mode", ["optional", "required"])
async def test_a_client_is_known_by_its_certificate(certificates: Path, mode: str) -> None:
    raw = MemoryStream()
    stream = TlsStream(raw, accepting(certificates, client_certificate=mode))
    await agree(stream, TlsClient(raw, client_context(certificates, "client")))
    assert stream.identity == CLIENT


async def test_a_certificate_that_nobody_asked_for_is_not_shown(certificates: Path) -> None:
    raw = MemoryStream()
    stream = TlsStream(raw, accepting(certificates))
    await agree(stream, TlsClient(raw, client_context(certificates, "client")))
    assert stream.identity is None


async def test_without_a_certificate_where_it_is_optional(certificates: Path) -> None:
    raw = MemoryStream()
    stream = TlsStream(raw, accepting(certificates, client_certificate="optional"))
    await agree(stream, TlsClient(raw, client_context(certificates)))
    assert stream.identity is None


@pytest.mark.parametrize(
    ("shown", "said", "heard"),
    [
        (None, "the client has sent no certificate, and one is required", "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        ("other/client", "the client's certificate is of an unknown authority", "TLSV1_ALERT_UNKNOWN_CA"),
        ("expired-client", "the client's certificate has expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        ("server", "the client's certificate is not one for clients", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
    ],
)
async def test_a_client_that_is_not_believed(certificates: Path, shown: str | None, said: str, heard: str) -> None:
    raw = MemoryStream()
    stream = TlsStream(raw, accepting(certificates, client_certificate="required"))
    assert await failure(stream, TlsClient(raw, client_context(certificates, shown))) == (said, heard)


@pytest.mark.parametrize(
    ("name", "believed", "said"),
    [
        ("server", "other/ca", "the client does not know the authority of this daemon's certificate"),
        ("expired", "ca", "the client says that this daemon's certificate has expired"),
        (
            "elsewhere",
            "ca",
            "the client does not take this daemon's certificate (is it for this host's name? "
            "is the client's clock right?)",
        ),
    ],
)
async def test_a_client_that_does_not_believe(certificates: Path, name: str, believed: str, said: str) -> None:
    raw = MemoryStream()
    stream = TlsStream(raw, accepting(certificates, name))
    found, heard = await failure(stream, TlsClient(raw, client_context(certificates, ca=believed)))
    assert (found, heard) == (said, "CERTIFICATE_VERIFY_FAILED")


async def test_an_older_tls(certificates: Path) -> None:
    raw, context = MemoryStream(), client_context(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    found = await failure(TlsStream(raw, accepting(certificates)), TlsClient(raw, context))
    assert found == ("the client does not speak TLS 1.3", "TLSV1_ALERT_PROTOCOL_VERSION")


async def test_a_client_that_speaks_no_tls_is_told_so_in_its_own_language(certificates: Path) -> None:
    raw = MemoryStream()
    stream = TlsStream(raw, accepting(certificates))
    raw.feed(msgpack.packb([0, 1, "hello", [{"protocol": 1}]]))
    said, _ = await failure(stream)
    assert said == "the client does not speak TLS (lpt:// in place of lpts://?)"
    assert msgpack.unpackb(raw.take()) == [2, "closing", ["this listener speaks TLS: use lpts:// in place of lpt://"]]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "the client has closed the connection"),
        (bytes.fromhex("16030102"), "the client has closed the connection"),
        (bytes.fromhex("160301000401000000"), "TLS failed: "),
        (bytes.fromhex("16ffff000401000000"), "the client does not speak TLS"),
    ],
)
async def test_what_is_hardly_a_handshake(certificates: Path, sent: bytes, said: str) -> None:
    raw = MemoryStream()
    stream = TlsStream(raw, accepting(certificates))
    raw.feed(*([sent] if sent else []))
    raw.end()
    found, _ = await failure(stream)
    assert found.startswith(said)


# Sending


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_is_lost_or_doubled_however_full_the_socket_is(certificates: Path, seed: int) -> None:
    chance = random.Random(seed)
    stream, client = await connected(certificates)
    data = chance.randbytes(300_000)
    taken, received = 0, b""
    while taken < len(data):
        client.stream.room = chance.choice([0, 1, 100, 5_000, 20_000, 70_000])
        offered = data[taken : taken + chance.choice([1, 2, 42, 1000, 65_536])]
        sent = stream.try_send(offered)
        waits = stream.unsent_bytes() - len(client.stream._outgoing)
        assert (waits == 0) or (sent < len(offered)), "what waits is told, so that somebody comes again"
        assert waits <= RECORD_BYTES + 100
        taken += sent
        received += client.read(chance.choice([1, 10_000, 1 << 20]))
    received += client.read()
    assert received == data


async def test_the_byte_held_back_is_never_the_first_of_a_frame_of_the_log(certificates: Path) -> None:
    assert RECORD_BYTES % INTERRUPT_FRAME_BYTES == 0
    for frames in (1, 2, 389, 390, 391, 1560):
        for room in (0, 1, 16_000, 17_000, 40_000):
            stream, _ = await connected(certificates, room)
            sent = stream.try_send(b"x" * INTERRUPT_FRAME_BYTES * frames)
            whole = sent == INTERRUPT_FRAME_BYTES * frames
            assert whole or sent % INTERRUPT_FRAME_BYTES == INTERRUPT_FRAME_BYTES - 1


async def test_waiting_for_room(certificates: Path, autojump_clock: trio.abc.Clock) -> None:
    stream, client = await connected(certificates, room=0)
    assert stream.try_send(b"ab") == 1
    assert stream.try_send(b"b") == 0
    with trio.move_on_after(1) as scope:
        await stream.wait_writable()
    assert scope.cancelled_caught
    client.stream.room = 1000
    await stream.wait_writable()
    assert stream.try_send(b"bc") == 2
    assert client.read() == b"abc"


# The end


async def test_the_client_says_goodbye_or_just_goes(certificates: Path) -> None:
    stream, client = await connected(certificates)
    client.write(b"last")
    client.goodbye()
    assert await stream.receive() == b"last"
    assert await stream.receive() == b""
    stream, client = await connected(certificates)
    client.write(b"last")
    client.stream.end()
    assert await stream.receive() == b"last"
    assert await stream.receive() == b""
    assert stream.try_receive() == b""


async def test_bytes_that_nobody_can_have_encrypted(certificates: Path) -> None:
    stream, client = await connected(certificates)
    client.stream.feed(bytes.fromhex("1703030020") + b"x" * 32)
    with pytest.raises(ConnectionError, match="TLS failed: "):
        await stream.receive()


async def test_finishing_says_goodbye(certificates: Path, autojump_clock: trio.abc.Clock) -> None:
    stream, client = await connected(certificates, room=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.finish)
        await wait_all_tasks_blocked()
        before = client.stream.is_finished
        client.stream.room = 1000
    assert (before, client.stream.is_finished) == (False, True)
    client._incoming.write(client.stream.take())
    assert client.tls.read(10) == b""  # OpenSSL's word for an end that was told
    stream.close()
    assert client.stream.is_closed


# Identity


def test_whom_a_certificate_names() -> None:
    subject = ((("organizationName", "Lab"),), (("commonName", "by its subject"),))
    assert identity_of({"subject": subject}) == "by its subject"
    assert identity_of({"subject": subject, "subjectAltName": (("DNS", "by its name"), ("DNS", "x"))}) == "by its name"
    assert identity_of({"subject": ((("organizationName", "Lab"),),)}) is None
    assert identity_of({}) is None


async def test_an_identity_cannot_write_into_the_log(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, _ = await connected(certificates)
    monkeypatch.setattr("lpt_service.server.tls.identity_of", lambda certificate: "a\nb\x1b[1m" + "x" * 200)
    assert stream.identity == "a?b?[1m" + "x" * 93
