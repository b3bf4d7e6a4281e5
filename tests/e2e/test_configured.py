"""A daemon with a configuration file: several ports, each with what `--simulate` does not set; tokens; reload."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client import (
    ALLOCATE,
    CONNECT_INTERRUPT,
    CONTROL,
    DATA,
    FREE,
    INTERRUPT_ENABLE,
    MASKED,
    UNMASKED,
    WRITE_PORT_UCHAR,
    Account,
    RawClient,
    interrupts,
    routine,
)
from tests.e2e.daemons import DaemonProcess, eventually, serving

CONFIG = """
[server]
listen = ["lpt://127.0.0.1:0", "lpt://127.0.0.1:0"]
log_level = "warning"

[[port]]
name = "GATED"
[[port]]
name = "SAFE"
safe_data = 0x0F
safe_control = 0x06
[[port]]
name = "STORMY"
enable_connect_interrupt = true
max_interrupt_rate_hz = 20
interrupt_linger_s = 0
[[port]]
name = "BRIEF"
enable_connect_interrupt = true
interrupt_linger_s = 0

[limits]
max_waiters = 1
"""


class Configured:
    """A daemon and its file."""

    def __init__(self, daemon: DaemonProcess, path: Path) -> None:
        self.daemon = daemon
        self.path = path

    def client(self, port: str) -> RawClient:
        return self.daemon.connect(port=port)

    def reload(self, text: str, said: str) -> None:
        """Write the file anew, and reload; `said` is what the daemon then logs one more time."""
        before = self.daemon.log().count(said)
        self.path.write_text(text)
        self.daemon.signal(signal.SIGHUP)
        eventually(lambda: self.daemon.log().count(said) > before, f"not said: {said}")


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    path = tmp_path_factory.mktemp("configured") / "lptd.toml"
    path.write_text(CONFIG)
    with serving("--config", str(path), "--log-level", "info", lines=8) as daemon:
        yield Configured(daemon, path)


def test_one_line_for_each_listener_and_port(configured: Configured) -> None:
    lines = configured.daemon.lines
    matches = [re.fullmatch(r"listening on lpt://127\.0\.0\.1:(\d+)/(\w+)", line) for line in lines]
    parts = [match.groups() for match in matches if match is not None]
    assert [name for _, name in parts] == ["GATED", "SAFE", "STORMY", "BRIEF"] * 2
    assert len({port for port, _ in parts}) == 2


def test_where_there_are_several_ports_one_must_be_named(configured: Configured) -> None:
    client = RawClient(configured.daemon.address)
    assert client.refusal(client.request("hello", {"protocol": 1})) == "STATUS_NO_SUCH_DEVICE"
    assert client.rest()[-1][:2] == [2, "closing"]
    client.close()


def test_row_refused_by_the_limit_of_waiters(configured: Configured) -> None:
    owner, waiter, third = (configured.client("BRIEF") for _ in range(3))
    owner.allocate()
    msgid = waiter.control(ALLOCATE)
    waiter.notification("queued")
    assert third.refused(ALLOCATE) == "STATUS_INSUFFICIENT_RESOURCES"
    owner.close()
    assert waiter.output(msgid) == b""
    third.control(ALLOCATE)
    assert third.notification("queued")[1] == 1
    waiter.close()
    third.close()


# 3: the gate


def test_semantic_03_connecting_is_disabled_by_default_and_that_is_checked_first(configured: Configured) -> None:
    client = configured.client("GATED")
    for input_, output_length in ((routine(1), 40), (routine(0, 0), 40), (b"", 0), (routine(1 << 63), 0)):
        assert client.refused(CONNECT_INTERRUPT, input_, output_length) == "STATUS_UNSUCCESSFUL"
    assert client.call("status")["interrupts"]["enabled"] is False
    client.close()


def test_semantic_03_the_gate_is_read_at_every_request(configured: Configured) -> None:
    """Semantic 8 too: turning it off leaves existing registrations."""
    client, owner = configured.client("GATED"), configured.client("GATED")
    owner.allocate()
    open_ = CONFIG.replace('name = "GATED"', 'name = "GATED"\nenable_connect_interrupt = true')
    configured.reload(open_, "reloaded")
    client.connect_interrupt(1)
    client.heard()
    configured.reload(CONFIG, "reloaded")
    assert client.refused(CONNECT_INTERRUPT, routine(2), 32) == "STATUS_UNSUCCESSFUL"
    owner.raise_interrupts(1)
    assert client.notification("interrupt")[2] == 1
    client.disconnect_interrupt(1)
    for each in (client, owner):
        each.close()


# 4: linger


def test_semantic_04_without_linger_the_device_is_quiet_at_once(configured: Configured) -> None:
    listener, other = configured.client("BRIEF"), configured.client("BRIEF")
    listener.connect_interrupt()
    assert other.read(CONTROL) & INTERRUPT_ENABLE
    listener.reset()
    eventually(lambda: not other.read(CONTROL) & INTERRUPT_ENABLE)
    other.close()


# 8: storms


def test_semantic_08_a_storm_is_masked_and_unmasked_and_the_account_holds(configured: Configured) -> None:
    owner, listener, newcomer = (configured.client("STORMY") for _ in range(3))
    owner.allocate()
    first = listener.connect_interrupt()
    account = Account()
    for storm in range(1, 5):  # the pause doubles each time: once it is long enough for what is done in it
        received, entries = account.received, len(account.kinds)
        owner.raise_interrupts(100)
        eventually(lambda: MASKED in account.add(listener.heard()).kinds[entries:])  # noqa: B023 - waited for here
        newcomer.control(CONNECT_INTERRUPT, routine(storm), 32)
        enabled = newcomer.read(CONTROL) & INTERRUPT_ENABLE
        owner.raise_interrupts(10)  # masked: nobody's
        is_masked = owner.call("status")["interrupts"]["masked"]
        eventually(lambda: account.add(listener.heard()).kinds[-1] == UNMASKED)
        if is_masked and account.kinds[entries:].count(MASKED) == 1:
            break
    assert is_masked is True
    assert not enabled, "connecting does not unmask"
    assert account.kinds[-2:] == [MASKED, UNMASKED]
    assert 20 < account.received - received <= 100
    assert owner.read(CONTROL) & INTERRUPT_ENABLE
    owner.raise_interrupts(1)
    end = listener.disconnect_interrupt()
    account.add(listener.heard())
    assert account.received + account.lost == end - first
    for each in (owner, listener, newcomer):
        each.close()


# 10: safe state


def test_semantic_10_the_safe_state(configured: Configured) -> None:
    """At start; after an owner that died, before the next gets the port; not after a free."""
    other, owner, waiter = (configured.client("SAFE") for _ in range(3))
    assert (other.read(DATA), other.read(CONTROL)) == (0x0F, 0x06)
    owner.allocate()
    owner.write(DATA, 0xF0)
    owner.write(CONTROL, 0x21)
    owner.ioctl(FREE)
    assert (other.read(DATA) if not other.read(CONTROL) & 0x20 else None, other.read(CONTROL)) == (0xF0, 0x01)
    owner.allocate()
    owner.ioctl(WRITE_PORT_UCHAR, CONTROL + b"\x29")
    msgid = waiter.control(ALLOCATE)
    waiter.notification("queued")
    owner.reset()
    waiter.output(msgid)
    assert (waiter.read(DATA), waiter.read(CONTROL)) == (0x0F, 0x06)
    waiter.close()
    other.close()


# Tokens, reload


def test_row_a_bad_token(configured: Configured) -> None:
    """ACCESS_DENIED, ends after the reply; nothing about ports is told before the token holds."""
    digest = hashlib.sha256(b"secret").hexdigest()
    configured.reload(CONFIG + f'[[token]]\nname = "lab"\nsha256 = "{digest}"\n', "reloaded")
    try:
        for keys in ({}, {"token": ""}, {"token": "Secret"}, {"token": digest}, {"port": "NONE"}):
            client = RawClient(configured.daemon.address)
            hello = client.request("hello", {"protocol": 1, **keys})
            assert client.refusal(hello) == "STATUS_ACCESS_DENIED"
            (closing,) = client.rest()
            assert closing[1] == "closing"
            assert "GATED" not in str(closing)
            client.close()
        configured.daemon.connect(port="GATED", token="secret").close()
    finally:
        configured.reload(CONFIG, "reloaded")


def test_a_reload_that_is_refused_changes_nothing(configured: Configured) -> None:
    client = configured.client("GATED")
    configured.path.write_text(CONFIG.replace('name = "GATED"', 'name = "GATED"\ncolour = 1\nsafe_data = 256'))
    configured.daemon.signal(signal.SIGHUP)
    wanted = [f"{configured.path}: port[0].colour: unknown key", f"{configured.path}: port[0].safe_data: "]
    eventually(lambda: all(f"reload refused: {each}" in configured.daemon.log() for each in wanted))
    assert client.refused(CONNECT_INTERRUPT, routine(1), 40) == "STATUS_UNSUCCESSFUL"
    configured.reload(CONFIG, "reloaded")
    assert interrupts(client.heard()) == []
    client.close()


def test_listeners_are_exchanged_and_nobody_notices(tmp_path: Path) -> None:
    """An owner and a waiter came through a listener that goes; a newcomer takes the one that comes."""
    path = tmp_path / "lptd.toml"
    host = "127.7.7.1"  # no other test's: nobody takes the TCP port when it is let go of
    path.write_text(f'[server]\nlisten = ["lpt://{host}:0"]\nlog_level = "warning"\n')
    with tempfile.TemporaryDirectory() as folder, serving("--config", str(path)) as daemon:
        owner, waiter = daemon.connect(), daemon.connect()
        owner.allocate()
        msgid = waiter.control(ALLOCATE)
        waiter.notification("queued")
        path.write_text(f'[server]\nlisten = ["lpt+unix://{folder}/s"]\nlog_level = "info"\n')
        daemon.signal(signal.SIGHUP)
        eventually(lambda: "reloaded" in daemon.log())
        assert f"reload: no longer listening on lpt://{host}:" in daemon.log()
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()
        newcomer = RawClient(f"{folder}/s").hello()
        assert newcomer.call("status")["waiting"] == 1
        owner.ioctl(FREE)
        assert waiter.output(msgid) == b""
        for client in (owner, waiter, newcomer):
            client.close()


def test_paths_that_are_not_utf8(tmp_path: Path) -> None:
    """A folder with such a name has everything: configuration, state and audit from systemd's variable, sockets.

    A reload that is refused tells of the file, on standard error and in the audit trail.
    """
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    config = folder / "lptd.toml"
    quoted = f"{tmp_path}/caf%E9"
    config.write_text(f'[server]\nlisten = ["lpt+unix://{quoted}/s"]\n')
    environment = {"STATE_DIRECTORY": str(folder)}
    with serving("--config", str(config), environment=environment) as daemon:
        assert daemon.lines == [f"listening on lpt+unix://{quoted}/s#LPT1"]
        client = RawClient(str(folder / "s")).hello()
        client.allocate()
        client.close()
        config.write_text("=")
        daemon.signal(signal.SIGHUP)
        eventually(lambda: f"reload refused: {tmp_path}/caf\\udce9/lptd.toml: not TOML" in daemon.log())
    records = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    (reason,) = (each["reason"] for each in records if each["event"] == "reload_refused")
    assert reason.startswith(f"{config}: not TOML: ")
    assert (folder / "last-grant-LPT1").exists()
