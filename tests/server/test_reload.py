"""Reading the configuration anew while the daemon runs."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from lpt_service.config import Config, ConfigError, parse
from lpt_service.server.daemon import Daemon
from tests.server.fakes import Peer, VirtualClock, config, enter, simulated

# Reload


class Reloadable:
    """A daemon whose configuration is what the test says."""

    def __init__(self, **sections: Any) -> None:
        self.next: Config | ConfigError = config(**sections)
        self.daemon = Daemon(config(**sections), reread=self._reread, clock=VirtualClock())

    def _reread(self) -> Config:
        if isinstance(self.next, ConfigError):
            raise self.next
        return self.next

    async def reload(self, **sections: Any) -> None:
        self.next = config(**sections)
        await self.daemon.reload()


async def test_reload_applies_what_can_be_changed(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    reloadable = Reloadable()
    await nursery.start(reloadable.daemon.run)
    peer = await enter(reloadable.daemon)
    assert await peer.status_of(peer.connect_interrupt()) == "STATUS_UNSUCCESSFUL"
    await reloadable.reload(
        port=[{"enable_connect_interrupt": True, "interrupt_linger_s": 1}],
        limits={"dead_peer_s": 3, "max_sessions": 2},
        token=[{"name": "a", "sha256": hashlib.sha256(b"x").hexdigest()}],
    )
    await peer.result(peer.connect_interrupt())
    newcomer = Peer(reloadable.daemon)
    assert await newcomer.status_of(newcomer.send("hello", {"protocol": 1})) == "STATUS_ACCESS_DENIED"
    welcome = await Peer(reloadable.daemon).say_hello(token="x")
    assert welcome["limits"]["dead_peer_s"] == 3
    assert "reloaded" in caplog.text
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def test_semantic_08_turning_the_gate_off_leaves_registrations(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    reloadable = Reloadable(port=[{"enable_connect_interrupt": True}])
    await nursery.start(reloadable.daemon.run)
    peer = await enter(reloadable.daemon)
    await peer.result(peer.connect_interrupt())
    await reloadable.reload()
    assert await peer.status_of(peer.connect_interrupt(isr=2)) == "STATUS_UNSUCCESSFUL"
    simulated(reloadable.daemon).raise_interrupt()
    assert [message[1] for message in await peer.messages()] == ["interrupt"]


async def test_reload_of_a_configuration_with_errors_is_refused_whole(
    nursery: trio.Nursery, autojump_clock: MockClock, errors_logged: list[str]
) -> None:
    reloadable = Reloadable(limits={"max_sessions": 7})
    await nursery.start(reloadable.daemon.run)
    reloadable.next = ConfigError(["a.toml: port[0].name: bad", "a.toml: limits.x: unknown key"])
    await reloadable.daemon.reload()
    assert reloadable.daemon.limits.max_sessions == 7
    assert errors_logged == [
        "reload refused: a.toml: port[0].name: bad",
        "reload refused: a.toml: limits.x: unknown key",
    ]
    errors_logged.clear()


async def test_reload_names_what_needs_a_restart(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reloadable = Reloadable(port=[{"name": "LPT1"}, {"name": "LPT2"}])
    await nursery.start(reloadable.daemon.run)
    reloadable.next = parse(
        {
            "server": {"listen": ["lpt://127.0.0.1:0"]},
            "port": [{"name": "LPT2", "pulse_hz": 5, "interrupt_log_frames": 99}, {"name": "LPT3"}],
        }
    )
    await reloadable.daemon.reload()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "reload: interrupt_log_frames of port LPT2 needs a restart",
        "reload: port LPT1 is not named any more, and stays until a restart",
        "reload: port LPT3 is new, and needs a restart",
        "reload: pulse_hz of port LPT2 needs a restart",
    ]
    assert set(reloadable.daemon.workers) == {"LPT1", "LPT2"}


async def test_reload_that_only_changes_the_order_of_ports_is_silent(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reloadable = Reloadable(port=[{"name": "LPT1"}, {"name": "LPT2", "pulse_hz": 1}])
    await nursery.start(reloadable.daemon.run)
    await reloadable.reload(port=[{"name": "LPT2", "pulse_hz": 1}, {"name": "LPT1"}])
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def test_reload_without_a_configuration_is_told(
    daemon: Daemon, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await daemon.reload()
    assert "there is no configuration file to read" in caplog.text
