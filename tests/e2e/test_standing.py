"""Who begins to listen to a paused port is told so by whatever client, and when it is heard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import lpt_client
from lpt_client import blocking
from lpt_client.events import Event, Mark
from tests.e2e.daemons import EVENT_TIMEOUT_S, serving
from tests.lptctl.processes import finish, read_line, started


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A port that this user may administer."""
    path = tmp_path / "lptd.sock"
    with serving("--simulate", "--listen", f"lpt+unix://{path}"):
        yield f"lpt+unix://{path}#LPT1"


def kinds(*events: Event | None) -> list[str]:
    return [each.kind for each in events if isinstance(each, Mark)]


async def listen_with_trio(url: str, admin: blocking.Port) -> list[str]:
    """What it hears from the beginning until the port is resumed."""
    with trio.fail_after(EVENT_TIMEOUT_S):
        async with lpt_client.open_port(url) as port, port.connect_interrupt() as interrupts:
            first, is_stopped = await anext(interrupts), [interrupts.is_stopped]
            await trio.to_thread.run_sync(admin.resume_port)
            second = await anext(interrupts)
            assert [*is_stopped, interrupts.is_stopped] == [True, False]
    return kinds(first, second)


def test_a_paused_port(url: str) -> None:
    with blocking.open_port(url) as admin, blocking.open_port(url, reconnect=True) as port:
        admin.pause("a new cable")
        with started("listen", "--json", url=url) as lptctl, port.connect_interrupt() as interrupts:
            first = interrupts.next(EVENT_TIMEOUT_S)
            with port.connect_interrupt() as beside:
                assert kinds(first, beside.next(EVENT_TIMEOUT_S)) == ["stopped", "stopped"]
            shown = [json.loads(read_line(lptctl.stdout)) for _ in range(2)]
            assert [each["event"] for each in shown] == ["connected", "mark"]
            assert shown[1]["kind"] == "stopped"
            assert trio.run(listen_with_trio, url, admin) == ["stopped", "unheard"]
            assert kinds(interrupts.next(EVENT_TIMEOUT_S)) == ["unheard"]
            assert json.loads(read_line(lptctl.stdout))["kind"] == "unheard"
            lptctl.terminate()
            finish(lptctl)
        assert interrupts.received + interrupts.lost == 0
