"""Whose registration ends learns it, whatever routines it has, and whatever notifications its session wants."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from lpt_service.protocol.messages import KIND_STOPPED
from lpt_service.server.port_worker import _LOOK_INTERVAL_S
from tests.server.fakes import closing, routine, simulated
from tests.server.resuming import back, come, graceful

ROUTINES = {"an ISR": (1, 0), "a deferred check": (0, 2), "both": (1, 2)}
WANTED: dict[str, dict[str, Any]] = {
    "everything": {},
    "no interrupts": {"notifications": ["disconnected", "port_check", "closing"]},
}


def has_mark(messages: list[Any]) -> bool:
    return any(message[1] == "interrupt" and message[2][5] == KIND_STOPPED for message in messages)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("routines", ROUTINES)
@pytest.mark.parametrize("is_away", [False, True], ids=["there", "away"])
async def test_the_port_is_removed(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    errors_logged: list[str],
    routines: str,
    wanted: str,
    is_away: bool,
) -> None:
    daemon = await graceful(nursery)
    client = await come(daemon, **WANTED[wanted])
    assert "disconnected" in client.welcome["features"]
    isr, deferred = ROUTINES[routines]
    await client.result(client.connect_interrupt(isr, deferred))
    if is_away:
        await client.lose()
    simulated(daemon).unplug()
    await trio.sleep(_LOOK_INTERVAL_S + 0.1)  # where nobody listens it is noticed then
    if is_away:
        client = await back(daemon, client, **WANTED[wanted])
        assert client.resumed["registrations"] == []
        messages = client.heard
    else:
        messages = await client.messages()
    told = [message[2] for message in messages if message[1] == "disconnected"]
    assert told == [[routine(isr, deferred), "port removed: the simulated port was unplugged"]]
    assert has_mark(messages) is (isr != 0 and wanted == "everything")
    await trio.sleep(3)
    assert (await client.result(client.connect_interrupt(isr, deferred)))[0] == 40, (
        "the port is back, and it begins anew"
    )
    errors_logged.clear()


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("routines", ROUTINES)
async def test_the_daemon_stops(nursery: trio.Nursery, autojump_clock: MockClock, routines: str, wanted: str) -> None:
    """`closing` says it all."""
    daemon = await graceful(nursery)
    client = await come(daemon, **WANTED[wanted])
    isr, deferred = ROUTINES[routines]
    await client.result(client.connect_interrupt(isr, deferred))
    daemon.stop()
    messages = await client.messages()
    assert closing(messages) == "the daemon is stopping"
    assert not any(message[1] == "disconnected" for message in messages)


async def test_who_does_not_want_to_be_told_is_not(
    nursery: trio.Nursery, autojump_clock: MockClock, errors_logged: list[str]
) -> None:
    daemon = await graceful(nursery)
    client = await come(daemon, notifications=["port_check"])
    await client.result(client.connect_interrupt(0, 2))
    simulated(daemon).unplug()
    await trio.sleep(_LOOK_INTERVAL_S + 0.1)
    assert await client.messages() == []
    errors_logged.clear()
