"""What systemd is told while the daemon runs; on a virtual clock, with a real notification socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.config import Config, ConfigError
from lpt_service.core.function_driver import PortState
from lpt_service.server.daemon import Daemon
from lpt_service.server.supervision import STATUS_MAX_CHARACTERS
from lpt_service.server.systemd import Handover, Notifier
from tests.server.fakes import START_NS, VirtualClock, config, enter, simulated
from tests.server.manager import Manager

NOTHING_TO_TELL = "STATUS=LPT1: free, 0 waiting, 0 sessions"


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        yield manager


async def start(nursery: trio.Nursery, manager: Manager, *, watchdog_s: float | None = None, **sections: Any) -> Daemon:
    handover = Handover(notifier=Notifier(manager.address), watchdog_s=watchdog_s)
    settings = config(**{"port": [{"enable_connect_interrupt": True}], **sections})
    daemon = Daemon(settings, reread=lambda: settings, clock=VirtualClock(), handover=handover)
    await nursery.start(daemon.run)
    return daemon


# State and status


async def test_it_is_ready_once_and_says_what_changes_once_a_second(
    nursery: trio.Nursery, autojump_clock: MockClock, manager: Manager
) -> None:
    daemon = await start(nursery, manager)
    assert manager.heard() == [["READY=1", NOTHING_TO_TELL]]
    await trio.sleep(60)
    assert manager.heard() == []
    owner, waiter = await enter(daemon, client="EEG"), await enter(daemon)
    await owner.result(owner.allocate())
    waiter.allocate()
    await wait_all_tasks_blocked()
    assert manager.heard() == []
    await trio.sleep(1.5)
    owned = f"STATUS=LPT1: owned by 'EEG' (session {owner.session.number}), 1 waiting, 2 sessions"
    assert manager.heard() == [["READY=1", owned]]
    for each in (owner, waiter) * 50:
        await each.result(each.free())
        each.allocate()
    await wait_all_tasks_blocked()
    assert manager.heard() == []


async def test_a_status_of_many_ports_is_cut(
    nursery: trio.Nursery, autojump_clock: MockClock, manager: Manager
) -> None:
    await start(nursery, manager, port=[{"name": f"PORT-{number}"} for number in range(64)])
    ((_, status),) = manager.heard()
    line = status.removeprefix("STATUS=")
    assert len(line) == STATUS_MAX_CHARACTERS
    assert line.startswith("PORT-0: free")
    assert line.endswith("…")


async def test_a_client_s_name_says_nothing_to_systemd(
    nursery: trio.Nursery, autojump_clock: MockClock, manager: Manager
) -> None:
    daemon = await start(nursery, manager)
    owner = await enter(daemon, client="x\nMAINPID=1\nREADY=1")
    await owner.result(owner.allocate())
    manager.heard()
    await trio.sleep(1.5)
    ((state, status),) = manager.heard()
    assert (state, "\\nMAINPID=1" in status) == ("READY=1", True)


async def test_an_absent_port_is_told_with_the_reason(
    nursery: trio.Nursery, autojump_clock: MockClock, manager: Manager
) -> None:
    daemon = await start(nursery, manager)
    driver = daemon.workers["LPT1"].driver
    driver.state, driver.why_absent = PortState.ABSENT, "no such device"
    assert daemon._supervision.status_line() == "LPT1: absent (no such device), 0 sessions"


async def test_what_was_not_taken_is_told_again(
    nursery: trio.Nursery, autojump_clock: MockClock, manager: Manager
) -> None:
    crowd = Notifier(manager.address)
    while crowd.notify("X=1"):
        pass
    await start(nursery, manager)
    assert ["READY=1", NOTHING_TO_TELL] not in manager.heard()
    await trio.sleep(1.5)
    assert manager.heard() == [["READY=1", NOTHING_TO_TELL]]
    crowd.close()


async def test_stopping_is_told_with_the_time_it_may_take(autojump_clock: MockClock, manager: Manager) -> None:
    async with trio.open_nursery() as nursery:
        daemon = await start(nursery, manager, server={"listen": ["lpt://127.0.0.1:0"], "stop_timeout_s": 300})
        manager.heard()
        daemon.stop()
    assert manager.heard() == [
        ["EXTEND_TIMEOUT_USEC=310000000"],
        ["STOPPING=1", "STATUS=stopping; LPT1: free, 0 waiting, 0 sessions"],
    ]


async def test_a_reload_is_told_from_beginning_to_end(
    nursery: trio.Nursery, autojump_clock: MockClock, manager: Manager, errors_logged: list[str]
) -> None:
    answers: list[Config | ConfigError] = [ConfigError(["bad"]), config(), config()]

    def reread() -> Config:
        answer = answers.pop(0)
        if isinstance(answer, ConfigError):
            raise answer
        return answer

    daemon = Daemon(
        config(), reread=reread, clock=VirtualClock(), handover=Handover(notifier=Notifier(manager.address))
    )
    await nursery.start(daemon.run)
    manager.heard()
    reloading = ["RELOADING=1", f"MONOTONIC_USEC={START_NS // 1000}"]
    await daemon.reload()
    refused = "STATUS=the last reload was refused, see the log; LPT1: free, 0 waiting, 0 sessions"
    assert manager.heard() == [reloading, ["READY=1", refused]]
    for _ in range(2):  # also where the status is what it was
        await daemon.reload()
        assert manager.heard() == [reloading, ["READY=1", NOTHING_TO_TELL]]
    assert errors_logged == ["reload refused: bad"]
    errors_logged.clear()


async def test_a_long_reload_is_not_over_before_it_is(
    nursery: trio.Nursery, autojump_clock: MockClock, manager: Manager
) -> None:
    supervision = (await start(nursery, manager))._supervision
    manager.heard()
    supervision.reloading()
    await trio.sleep(10)
    assert [each[0] for each in manager.heard()] == ["RELOADING=1"]
    supervision.ready()
    assert manager.heard() == [["READY=1", NOTHING_TO_TELL]]


async def test_a_daemon_that_stops_in_a_reload_is_not_ready_again(
    nursery: trio.Nursery, autojump_clock: MockClock, manager: Manager
) -> None:
    supervision = (await start(nursery, manager))._supervision
    supervision.reloading()
    supervision.stopping(5)
    manager.heard()
    supervision.ready("the reload was refused")
    supervision.reloading()
    await trio.sleep(10)
    assert manager.heard() == []


async def test_without_a_service_manager_nothing_runs(daemon: Daemon, autojump_clock: MockClock) -> None:
    await daemon._supervision.run()


# Signs of life


def signs(manager: Manager) -> int:
    return manager.heard().count(["WATCHDOG=1"])


async def test_signs_of_life_come_at_half_of_the_time_given(
    nursery: trio.Nursery, autojump_clock: MockClock, manager: Manager
) -> None:
    daemon = await start(nursery, manager, watchdog_s=10)
    await wait_all_tasks_blocked()
    assert signs(manager) == 1
    await trio.sleep(50.5)
    assert signs(manager) == 10
    owner = await enter(daemon)
    await owner.result(owner.allocate())
    await owner.result(owner.connect_interrupt())
    for _ in range(30):  # at work there is always something due soon, and it is done
        owner.pulse(1, 0, 900_000)
        simulated(daemon).raise_interrupt()
        await trio.sleep(1)
    assert signs(manager) == 6


async def test_there_are_none_where_none_are_wanted(
    nursery: trio.Nursery, autojump_clock: MockClock, manager: Manager
) -> None:
    await start(nursery, manager)
    await trio.sleep(100)
    assert signs(manager) == 0


async def test_stopping_takes_its_time_and_signs_of_life_go_on(autojump_clock: MockClock, manager: Manager) -> None:
    async with trio.open_nursery() as nursery:
        server = {"listen": ["lpt://127.0.0.1:0"], "stop_timeout_s": 30}
        daemon = await start(nursery, manager, watchdog_s=10, server=server)
        deaf = await enter(daemon, room=1)
        deaf.send("ping")
        await wait_all_tasks_blocked()
        manager.heard()
        daemon.stop()
    assert trio.current_time() > 1
    assert signs(manager) >= trio.current_time() // 5


class Stuck:
    """Ways in which a daemon can be stuck though its event loop turns."""

    def __init__(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worker = daemon.workers["LPT1"]
        self.daemon = daemon
        self.monkeypatch = monkeypatch

    async def deadline(self) -> None:
        """The task that keeps the deadlines is never woken."""
        self.monkeypatch.setattr(self.worker, "_wake_timer", None)
        self.worker.driver.deadlines._on_earlier = lambda: None
        self.worker.driver.deadlines.schedule(self.worker.clock.monotonic_ns(), lambda now_ns: None)

    async def job(self) -> None:
        """The task that advances a pulse does not come back."""

        async def never(at_ns: int) -> None:
            await trio.sleep_forever()

        self.monkeypatch.setattr(self.worker.clock, "sleep_until", never)
        owner = await enter(self.daemon)
        await owner.result(owner.allocate())
        owner.pulse(1, 0, 1000)
        await wait_all_tasks_blocked()

    async def interrupt(self) -> None:
        """Nobody fetches the interrupts."""
        listener = await enter(self.daemon)
        await listener.result(listener.connect_interrupt())
        self.worker._pump.listen(False)
        await wait_all_tasks_blocked()
        self.daemon.workers["LPT1"].driver.port.raise_interrupt()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("way", "said"), [("deadline", "a deadline is"), ("job", "a step of a job is"), ("interrupt", "interrupts are")]
)
async def test_a_stuck_daemon_gives_no_signs_of_life_and_says_why_once(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    manager: Manager,
    monkeypatch: pytest.MonkeyPatch,
    errors_logged: list[str],
    way: str,
    said: str,
) -> None:
    daemon = await start(nursery, manager, watchdog_s=10)
    await getattr(Stuck(daemon, monkeypatch), way)()
    await trio.sleep(10.5)
    manager.heard()
    await trio.sleep(30)
    assert signs(manager) == 0
    assert errors_logged == [f"port LPT1: {said} overdue: this daemon is stuck, and has itself restarted"]
    errors_logged.clear()


async def test_a_look_that_comes_late_after_a_long_halt_is_no_alarm(
    nursery: trio.Nursery, mock_clock: MockClock, manager: Manager
) -> None:
    """After SIGSTOP and SIGCONT everything is overdue at once; only what stays so at the next look counts."""
    daemon = await start(nursery, manager, watchdog_s=10)
    daemon.workers["LPT1"].driver.deadlines.schedule(START_NS + 10**9, lambda now_ns: None)
    await wait_all_tasks_blocked()
    manager.heard()
    for halt_s in (1000, 5):
        mock_clock.jump(halt_s)
        await wait_all_tasks_blocked()
        assert signs(manager) == 1
