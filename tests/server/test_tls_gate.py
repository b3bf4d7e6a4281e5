"""Where TLS clients come in: bounded in number and time, one line in the log for each that does not; certificates."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.config import TlsConfig
from lpt_service.server import tls_gate
from lpt_service.server.strangers import StrangerLog
from lpt_service.server.tls import TlsStream
from lpt_service.server.tls_gate import (
    EXPIRY_WARNING_DAYS,
    HANDSHAKE_TIMEOUT_S,
    TlsError,
    TlsGate,
    Validity,
    context_of,
    load_context,
    validity,
    warnings,
)
from tests.certificates import client_context, section
from tests.server.fakes import MemoryStream, VirtualClock, config
from tests.server.tls_client import TlsClient


@pytest.fixture
def gate(certificates: Path) -> TlsGate:
    gate = TlsGate(StrangerLog(VirtualClock()))
    gate.context = load_context(TlsConfig(**section(certificates)))
    return gate


class Comer:
    """Somebody who comes to the gate, and what becomes of it."""

    def __init__(self, gate: TlsGate, nursery: trio.Nursery, name: str = "peer", host: str = "here") -> None:
        self.raw = MemoryStream()
        self.led: TlsStream | None = None
        self.took_s: float | None = None
        self._began_s = trio.current_time()
        nursery.start_soon(self._come, gate, name, host)

    async def _come(self, gate: TlsGate, name: str, host: str) -> None:
        self.led = await gate.lead(self.raw, name, host)
        self.took_s = trio.current_time() - self._began_s

    async def agree(self, certificates: Path) -> None:
        client = TlsClient(self.raw, client_context(certificates))
        while not client.shake_hands():
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()


async def test_a_client_is_led_through(gate: TlsGate, certificates: Path, nursery: trio.Nursery) -> None:
    comer = Comer(gate, nursery)
    await comer.agree(certificates)
    assert comer.led is not None
    assert not comer.raw.is_closed


async def test_who_drips_in_is_given_up_and_disturbs_nobody(
    gate: TlsGate,
    certificates: Path,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    slow, silent = Comer(gate, nursery, "slow"), Comer(gate, nursery, "silent")
    hello = bytes.fromhex("1603010200010001fc0303") + bytes(500)
    for at in range(9):
        slow.raw.feed(hello[at : at + 1])
        await trio.sleep(1)
        quick = Comer(gate, nursery)
        await quick.agree(certificates)
        assert quick.led is not None
    await trio.sleep(5)
    for each, name in ((slow, "slow"), (silent, "silent")):
        assert each.took_s == pytest.approx(HANDSHAKE_TIMEOUT_S, abs=0.1)
        assert each.led is None
        assert each.raw.is_closed
        assert f"no TLS with {name}: the handshake was not over when 10 s had passed" in caplog.messages


async def test_when_too_many_come_the_oldest_goes(
    gate: TlsGate,
    certificates: Path,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tls_gate, "HANDSHAKES_MAX", 3)
    comers = []
    for number in range(5):
        comers.append(Comer(gate, nursery, f"peer {number}"))
        await wait_all_tasks_blocked()
    assert [each.raw.is_closed for each in comers] == [True, True, False, False, False]
    assert caplog.messages == [
        f"no TLS with peer {number}: the handshake was not over when 3 others came" for number in (0, 1)
    ]
    await comers[4].agree(certificates)
    assert comers[4].led is not None


async def test_who_comes_with_many_does_not_push_out_somebody_slow(
    gate: TlsGate, certificates: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_gate, "HANDSHAKES_MAX", 3)
    slow = Comer(gate, nursery, host="far away")
    for _ in range(20):
        await wait_all_tasks_blocked()
        Comer(gate, nursery, host="near")
    await slow.agree(certificates)
    assert slow.led is not None


async def test_a_failure_is_one_line_and_the_client_can_read_why(
    gate: TlsGate, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    comer = Comer(gate, nursery)
    comer.raw.feed(b"\x94\x00\x01")
    await wait_all_tasks_blocked()
    assert comer.led is None
    assert comer.raw.is_finished
    assert comer.raw.is_closed
    assert caplog.messages == ["no TLS with peer: the client does not speak TLS (lpt:// in place of lpts://?)"]


async def test_a_connection_that_breaks(gate: TlsGate, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    comer = Comer(gate, nursery)
    comer.raw.feed(b"\x16")
    await wait_all_tasks_blocked()
    comer.raw.break_(ConnectionResetError("reset"))
    await wait_all_tasks_blocked()
    assert comer.raw.is_closed
    assert caplog.messages == ["no TLS with peer: the connection broke: reset"]


@pytest.mark.parametrize("failure", [None, ConnectionResetError("reset")])
async def test_who_leaves_without_a_word_is_counted_only(
    gate: TlsGate, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, failure: Exception | None
) -> None:
    caplog.set_level("INFO")
    comer = Comer(gate, nursery)
    await wait_all_tasks_blocked()
    if failure is None:
        comer.raw.end()
    else:
        comer.raw.break_(failure)
    await wait_all_tasks_blocked()
    assert comer.raw.is_closed
    assert caplog.messages == []
    assert gate._strangers.left_silently == 1


async def test_the_end_of_the_daemon_closes_who_is_under_way(gate: TlsGate) -> None:
    async with trio.open_nursery() as nursery:
        comer = Comer(gate, nursery)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert comer.raw.is_closed
    assert not gate._under_way


# Certificates


def problems(**keys: Any) -> list[str]:
    with pytest.raises(TlsError) as caught:
        load_context(TlsConfig(**keys))
    return caught.value.problems


def test_files_that_are_not_there_are_all_named(tmp_path: Path) -> None:
    found = problems(**section(tmp_path, client_certificate="required"))
    for key, name, problem in zip(
        ("certificate", "key", "client_ca"), ("server.pem", "server.key", "ca.pem"), found, strict=True
    ):
        assert problem.startswith(
            f"tls.{key}: {tmp_path}/{name} cannot be read: No such file or directory (`lptctl cert`"
        )


def test_a_folder_in_the_place_of_a_file(certificates: Path, tmp_path: Path) -> None:
    (found,) = problems(**{**section(certificates), "key": str(tmp_path)})
    assert found.startswith(f"tls.key: {tmp_path} cannot be read: Is a directory")


def test_a_pair_that_does_not_match(certificates: Path) -> None:
    keys = {**section(certificates), "key": str(certificates / "client.key")}
    assert problems(**keys) == [f"tls.key: {certificates}/client.key is not the key of {certificates}/server.pem"]


def test_files_that_hold_something_else(certificates: Path, tmp_path: Path) -> None:
    swapped = {**section(certificates), "certificate": str(certificates / "server.key")}
    (found,) = problems(**swapped)
    assert found.endswith("server.key is not what it should be: a PEM file with BEGIN CERTIFICATE")
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n")
    (found,) = problems(**{**section(certificates), "certificate": str(damaged)})
    assert found.startswith(f"tls.certificate: {damaged} with ")
    (found,) = problems(**{**section(certificates, client_certificate="optional"), "client_ca": str(damaged)})
    assert found.startswith(f"tls.client_ca: {damaged} cannot be used: ")
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    (found,) = problems(**{**section(certificates), "key": str(locked)})
    assert "has a password" in found


@pytest.mark.parametrize("changed", ["certificate", "key", "client_ca"])
def test_files_as_any_editor_saves_them(certificates: Path, tmp_path: Path, changed: str) -> None:
    """A byte order mark and line ends of Windows do no harm; UTF-16 is named."""
    keys = section(certificates, client_certificate="required")
    text = Path(keys[changed]).read_text()
    saved = tmp_path / "saved.pem"
    for data in (b"\xef\xbb\xbf" + text.encode(), text.replace("\n", "\r\n").encode(), text.encode("utf-8-sig")):
        saved.write_bytes(data)
        load_context(TlsConfig(**{**keys, changed: str(saved)}))
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        saved.write_bytes(text.encode(encoding))
        found = problems(**{**keys, changed: str(saved)})
        assert found == [f"tls.{changed}: {saved} is UTF-16: save it as UTF-8"]


def test_the_authority_of_clients_is_read_only_if_they_are_asked(certificates: Path, tmp_path: Path) -> None:
    keys = {**section(certificates), "client_ca": str(tmp_path / "nowhere")}
    assert load_context(TlsConfig(**keys)).verify_mode == ssl.CERT_NONE
    assert problems(**keys, client_certificate="optional")


def test_nothing_is_read_without_a_listener_for_tls(certificates: Path) -> None:
    tls = section(certificates)
    assert context_of(config(tls={"key": "/nowhere"})) is None
    context = context_of(config(tls=tls, server={"listen": ["lpts://127.0.0.1:0"]}))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.num_tickets == 0


# Expiry


@pytest.mark.parametrize("client_certificate", ["none", "required"])
def test_when_a_certificate_is_valid(certificates: Path, client_certificate: str) -> None:
    """Also of one that is not valid at the moment."""
    for name, begins, ends in (("server", -1, 825), ("expired", -3, -1), ("future", 9, 835)):
        context = load_context(TlsConfig(**section(certificates, name, client_certificate=client_certificate)))
        found, now_s = validity(context), time.time()
        assert begins - 1 < (found.from_s - now_s) / 86_400 < begins + 2
        assert ends - 1 < found.days_left(now_s) < ends + 1


@pytest.mark.parametrize(
    ("at_s", "said"),
    [
        (
            999_999,
            "is not valid before 1970-01-12T13:46:40Z, and here it is 1970-01-12T13:46:39Z: is this clock wrong?",
        ),
        (1_000_000, None),
        (90_000_000 - 86_400 * EXPIRY_WARNING_DAYS, None),
        (90_000_000 - 86_400 * 2, "expires in 2 days, at 1972-11-07T16:00:00Z"),
        (90_000_001, "has expired, at 1972-11-07T16:00:00Z"),
    ],
)
def test_what_is_said_of_a_certificate(at_s: float, said: str | None) -> None:
    assert Validity(1_000_000, 90_000_000).warning(at_s) == said


def test_the_authority_of_clients_is_looked_at_too(certificates: Path) -> None:
    keys = {**section(certificates), "client_ca": str(certificates / "future" / "ca.pem")}
    assert not list(warnings(load_context(TlsConfig(**keys)), time.time()))
    ((key, said),) = warnings(load_context(TlsConfig(**keys, client_certificate="optional")), time.time())
    assert key == "client_ca"
    assert said.startswith("is not valid before 20")


async def test_of_an_expiry_is_warned_once_a_day_from_some_weeks_before(
    gate: TlsGate, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    assert gate.context is not None
    end_s, begin_s = validity(gate.context).until_s, trio.current_time()
    days_before = EXPIRY_WARNING_DAYS + 1.5
    with trio.move_on_after((EXPIRY_WARNING_DAYS + 4) * 86_400):
        await gate.watch_expiry(lambda: end_s - days_before * 86_400 + trio.current_time() - begin_s)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == EXPIRY_WARNING_DAYS + 2
    assert said[0].startswith(f"tls.certificate: it expires in {EXPIRY_WARNING_DAYS - 0.5:.0f} days, at 20")
    assert said[-1].startswith("tls.certificate: it has expired, at 20")


async def test_without_tls_nothing_is_watched(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    with trio.move_on_after(10 * 86_400):
        await TlsGate(StrangerLog(VirtualClock())).watch_expiry(lambda: 1e12)
    assert caplog.records == []
