"""The audit trail: what is recorded arrives in order, or is counted; it never holds anybody up."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from lpt_service.config import AuditConfig
from lpt_service.core.effects import Granted, Released
from lpt_service.core.requests import SessionState
from lpt_service.server import audit as audit_module
from lpt_service.server.audit import (
    LOGGED_A_WINDOW,
    OWNERSHIPS_A_WINDOW,
    QUEUE_MAX,
    REFUSED_A_WINDOW,
    Audit,
)
from lpt_service.server.audit_budget import NAMED_MAX, WINDOW_S
from lpt_service.server.audit_file import Appended, AuditFile
from lpt_service.server.audit_record import TEXT_MAX_CHARACTERS, Record, rfc3339
from tests.server.fakes import BOUND_S, START_REALTIME_NS, VirtualClock


class Disk:
    """What tests do to files: hang, be full."""

    def __init__(self) -> None:
        self.is_full = False
        self.may_write = threading.Event()
        self.may_write.set()
        self.hanging = threading.Event()
        self.opened: list[AuditFile] = []

    def open(self, path: Path, max_bytes: int, keep: int) -> AuditFile:
        self.opened.append(HangingFile(self, path, max_bytes, keep))
        return self.opened[-1]

    def write(self, descriptor: int, data: bytes) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, data)


class HangingFile(AuditFile):
    """Its first appends hang for as long as its disk does."""

    def __init__(self, disk: Disk, path: Path, max_bytes: int, keep: int) -> None:
        super().__init__(path, max_bytes, keep, write=disk.write)
        self._disk = disk

    def append(self, lines: Sequence[bytes]) -> Appended:
        if not self._disk.may_write.is_set():
            self._disk.hanging.set()
            assert self._disk.may_write.wait(BOUND_S)
        return super().append(lines)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audit(tmp_path: Path, disk: Disk) -> Audit:
    return Audit(AuditConfig(), VirtualClock(), tmp_path, open_file=disk.open)


@pytest.fixture
def log_alone(caplog: pytest.LogCaptureFixture) -> Audit:
    """Without a file there is no thread: the virtual clock is exact."""
    caplog.set_level(logging.INFO, "lpt_service")
    return Audit(AuditConfig(), VirtualClock(), None)


@pytest.fixture(autouse=True)
def log_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("lpt_service"), "propagate", True)  # another test may have set up the log


def entries(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole by now."""
    data = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The records in the log."""
    return [each.getMessage() for each in caplog.records if each.name == "lpt_service.audit"]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def until(condition: Callable[[], object]) -> None:
    """Threads take real time, while the virtual one runs."""
    give_up_at = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < give_up_at
        await trio.sleep(0.5)


# The way of a record


async def test_records_are_written_in_order_with_their_times(
    audit: Audit, path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await nursery.start(audit.run)
    audit.record("started", version="1")
    await trio.sleep(1)
    at = rfc3339(VirtualClock().realtime_ns())
    audit.record("granted", "LPT1", session=7, client="EEG", identity="user:anna", grant=42)
    await until(lambda: len(entries(path)) == 2)
    audit.record("stopped")
    await until(lambda: len(entries(path)) == 3)
    _, granted, _ = entries(path)
    assert granted == {
        "time": at,
        "event": "granted",
        "port": "LPT1",
        "session": 7,
        "client": "EEG",
        "identity": "user:anna",
        "grant": 42,
    }
    assert audit.lost == 0


async def test_what_is_recorded_before_and_after_it_runs_is_written_when_it_is_closed(
    audit: Audit, path: Path, autojump_clock: MockClock
) -> None:
    audit.record("started")
    async with trio.open_nursery() as nursery:
        await nursery.start(audit.run)
        nursery.cancel_scope.cancel()
    audit.record("stopped")
    await audit.close()
    await audit.close()
    assert [entry["event"] for entry in entries(path)] == ["started", "stopped"]
    audit.record("too late")
    assert audit.lost == 1


async def test_closing_within_a_cancelled_scope_writes_all_the_same(
    audit: Audit, path: Path, autojump_clock: MockClock
) -> None:
    audit.record("stopped")
    with trio.CancelScope() as scope:
        scope.cancel()
        await audit.close()
    assert len(entries(path)) == 1


async def test_recording_touches_neither_file_nor_log(
    audit: Audit, path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO, "lpt_service")
    audit.record("started")
    assert told(caplog) == []
    assert entries(path) == []
    await audit.close()
    assert len(told(caplog)) == len(entries(path)) == 1


async def test_a_long_text_is_cut_when_it_is_recorded(audit: Audit, path: Path, autojump_clock: MockClock) -> None:
    audit.record("granted", "LPT1", client="x" * 100_000)
    assert "x" * (TEXT_MAX_CHARACTERS + 1) not in repr(audit._records)
    await audit.close()
    assert entries(path)[0]["client"] == "x" * TEXT_MAX_CHARACTERS


async def test_in_the_log_a_record_has_fields(
    log_alone: Audit, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    log_alone.record("granted", "LPT1", session=7, client="a\nb", identity="user:anna", grant=42)
    await log_alone.close()
    (record,) = (each for each in caplog.records if each.name == "lpt_service.audit")
    assert "\n" not in record.getMessage()
    assert record.getMessage().startswith('audit: granted port="LPT1" session=7 client="a\\nb"')
    fields = {"event": "granted", "port": "LPT1", "session": 7, "identity": "user:anna", "grant": 42}
    assert fields.items() <= vars(record).items()


async def test_the_log_level_is_heeded(
    log_alone: Audit, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.WARNING, "lpt_service")
    log_alone.record("started")
    await log_alone.close()
    assert told(caplog) == []


async def test_an_ownership_is_told_with_times_of_day(audit: Audit, path: Path, autojump_clock: MockClock) -> None:
    clock = VirtualClock()
    owner = SessionState(7, 1, client="c" * 1000, peer="here", identity="user:anna")
    audit.record_ownership("LPT1", Granted(owner, 42, clock.monotonic_ns()))
    ended = Released(owner, 42, clock.monotonic_ns() - 10**9, clock.monotonic_ns(), "freed", written=3, interrupts=4)
    audit.record_ownership("LPT1", ended)
    await trio.sleep(100)
    await audit.close()
    granted, released = entries(path)
    who = {"grant": 42, "session": 7, "client": "c" * TEXT_MAX_CHARACTERS, "identity": "user:anna", "peer": "here"}
    assert granted == {"time": rfc3339(START_REALTIME_NS), "event": "granted", "port": "LPT1", **who}
    assert released == {
        "time": rfc3339(START_REALTIME_NS), "event": "released", "port": "LPT1", **who,
        "since": rfc3339(START_REALTIME_NS - 10**9), "until": rfc3339(START_REALTIME_NS),
        "why": "freed", "bytes_written": 3, "interrupts": 4,
    }  # fmt: skip


# A disk that is full


async def test_a_full_disk_costs_lines_only_beyond_those_that_wait(
    audit: Audit,
    disk: Disk,
    path: Path,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    await nursery.start(audit.run)
    audit.record("first")
    await until(lambda: entries(path))
    disk.is_full = True
    for number in range(QUEUE_MAX + 5):
        audit.record("event", number=number)
        if number % 1000 == 0:
            await trio.sleep(1)
            await until(lambda: warnings(caplog))
    await until(lambda: audit.lost == 5)
    await trio.sleep(600)
    assert warnings(caplog) == [
        f"audit: {path} cannot be written (No space left on device); {QUEUE_MAX} lines wait, more are lost,"
        " the service goes on"
    ], "once"
    disk.is_full = False
    await until(lambda: entries(path)[-1]["event"] == "lost")
    audit.record("last")
    await until(lambda: entries(path)[-1]["event"] == "last" and len(warnings(caplog)) == 2)
    assert warnings(caplog)[1:] == ["audit: lines are written again; 5 were lost"]
    found = entries(path)
    assert [entry["number"] for entry in found[1:-2]] == list(range(QUEUE_MAX))
    assert (found[-2]["event"], found[-2]["count"]) == ("lost", 5)
    await until(lambda: not audit._lines)


async def test_a_disk_that_is_full_for_a_while_costs_nothing(
    audit: Audit,
    disk: Disk,
    path: Path,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    disk.is_full = True
    await nursery.start(audit.run)
    audit.record("one")
    await until(lambda: warnings(caplog))
    audit.record("two")
    disk.is_full = False
    await until(lambda: len(warnings(caplog)) == 2)
    assert [entry["event"] for entry in entries(path)] == ["one", "two"]
    assert warnings(caplog)[1] == "audit: lines are written again; 0 were lost"
    assert audit.lost == 0


async def test_what_a_full_disk_does_not_take_at_the_end_is_told(
    audit: Audit, disk: Disk, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    disk.is_full = True
    audit.record("one")
    audit.record("two")
    await audit.close()
    assert audit.lost == 2
    assert warnings(caplog)[-1] == "audit: the last 2 lines are not in the file; lost since the start: 2"


async def test_what_was_lost_is_told_in_the_file_at_the_end(
    audit: Audit, path: Path, autojump_clock: MockClock
) -> None:
    for _ in range(QUEUE_MAX + 3):
        audit._tell_one(Record(0, "event", None, {}))
    await audit.close()
    assert len(entries(path)) == QUEUE_MAX + 1
    assert (entries(path)[-1]["event"], entries(path)[-1]["count"]) == ("lost", 3)


async def test_a_burst_beyond_the_queue_is_counted(audit: Audit, path: Path, autojump_clock: MockClock) -> None:
    for _ in range(QUEUE_MAX + 7):
        audit.record("event")
    assert len(audit._records) == QUEUE_MAX
    await audit.close()
    assert audit.lost == 7
    assert len(entries(path)) == QUEUE_MAX + 1
    assert (entries(path)[-1]["event"], entries(path)[-1]["count"]) == ("lost", 7)


# A disk that hangs


async def test_a_disk_that_hangs_holds_up_nobody_and_the_log_goes_on(
    audit: Audit,
    disk: Disk,
    path: Path,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    caplog.set_level(logging.INFO, "lpt_service")
    disk.may_write.clear()
    await nursery.start(audit.run)
    audit.record("one")
    await until(disk.hanging.is_set)
    audit.record("two")
    await until(lambda: len(told(caplog)) == 2)
    for _ in range(QUEUE_MAX):
        audit.record("event")
    await until(lambda: audit.lost == 2)
    assert "does not take them" in warnings(caplog)[0]
    disk.may_write.set()
    await until(lambda: len(entries(path)) == QUEUE_MAX + 1)
    await until(lambda: len(warnings(caplog)) == 2)
    assert entries(path)[-1]["count"] == 2


async def test_a_disk_that_hangs_does_not_hold_up_the_stop(
    audit: Audit,
    disk: Disk,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    monkeypatch.setattr(audit_module, "STOP_TIMEOUT_S", 0.05)
    disk.may_write.clear()
    async with trio.open_nursery() as nursery:
        await nursery.start(audit.run)
        audit.record("one")
        await until(disk.hanging.is_set)
        nursery.cancel_scope.cancel()
    audit.record("two")
    await audit.close()
    assert audit._attempt is not None
    assert not audit._attempt.over.is_set(), "it hangs still"
    assert audit.lost == 2
    assert "the last 2 lines are not in the file" in warnings(caplog)[-1]
    disk.may_write.set()


async def test_a_disk_that_begins_to_hang_at_the_stop(
    audit: Audit, disk: Disk, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(audit_module, "STOP_TIMEOUT_S", 0.05)
    disk.may_write.clear()
    audit.record("one")
    await audit.close()
    assert audit.lost == 1
    disk.may_write.set()


async def test_a_stop_waits_for_lines_that_are_on_their_way_and_writes_them_once(
    audit: Audit, disk: Disk, path: Path, autojump_clock: MockClock
) -> None:
    disk.may_write.clear()
    async with trio.open_nursery() as nursery:
        await nursery.start(audit.run)
        audit.record("one")
        await until(disk.hanging.is_set)
        nursery.cancel_scope.cancel()
    audit.record("two")
    threading.Timer(0.05, disk.may_write.set).start()
    former = audit._attempt
    assert former is not None
    await audit.close()
    await until(former.over.is_set)
    assert [entry["event"] for entry in entries(path)] == ["one", "two"]
    assert audit.lost == 0


@pytest.mark.parametrize("delay_s", [0.0, 0.05, audit_module.GATHER_S, 0.15])
async def test_closed_while_it_runs_every_line_is_written_once(
    audit: Audit, path: Path, nursery: trio.Nursery, delay_s: float, autojump_clock: MockClock
) -> None:
    await nursery.start(audit.run)
    for number in range(20):
        audit.record("event", number=number)
    await trio.sleep(delay_s)
    audit.record("event", number=20)
    await audit.close()
    await trio.sleep(60)
    assert [entry["number"] for entry in entries(path)] == list(range(21))
    assert audit.lost == 0


async def test_lines_that_no_thread_has_taken_up_are_written_at_the_stop_and_not_again(
    audit: Audit, path: Path, autojump_clock: MockClock
) -> None:
    audit.record("event")
    audit._tell_some()
    assert audit._file is not None
    never_begun = audit._attempt = audit_module._Attempt(audit._file, tuple(audit._lines))
    await audit.close()
    never_begun.run()
    assert len(entries(path)) == 1
    assert audit.lost == 0


# Budgets


async def test_refused_attempts_have_a_budget(
    log_alone: Audit, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(log_alone.run)
        for number in range(REFUSED_A_WINDOW + 40):
            log_alone.refused("token", "LPT1", peer=f"192.0.2.7:{number}", identity="user:eve")
            if number < REFUSED_A_WINDOW:
                await trio.sleep(0.1)
        since = rfc3339(VirtualClock().realtime_ns())
        log_alone.record("paused", "LPT1")
        await trio.sleep(1)
        assert len(told(caplog)) == REFUSED_A_WINDOW + 1
        assert told(caplog)[-1] == 'audit: paused port="LPT1"'
        await trio.sleep(WINDOW_S - REFUSED_A_WINDOW * 0.1 - 1.01)
        assert len(told(caplog)) == REFUSED_A_WINDOW + 1
        await trio.sleep(0.02)
        assert told(caplog)[-1] == f'audit: refused_more count=40 since="{since}" by={{"user:eve": 40}}'
        log_alone.refused("token")
        await trio.sleep(1)
        assert told(caplog)[-1] == 'audit: refused why="token"'
        await trio.sleep(600)
        assert len(told(caplog)) == REFUSED_A_WINDOW + 3, "nothing to sum up"
        nursery.cancel_scope.cancel()


async def test_a_sum_comes_though_nothing_else_does(
    log_alone: Audit, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(log_alone.run)
        for _ in range(REFUSED_A_WINDOW):
            log_alone.refused("token")
        await trio.sleep(30)
        log_alone.refused("token")
        await trio.sleep(WINDOW_S - 29)
        nursery.cancel_scope.cancel()
    assert told(caplog)[-1].startswith("audit: refused_more count=1 ")


async def test_a_sum_precedes_what_comes_after_its_minute(
    log_alone: Audit, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for _ in range(REFUSED_A_WINDOW + 1):
        log_alone.refused("token")
    await trio.sleep(WINDOW_S)
    log_alone.refused("role")
    await log_alone.close()
    assert [text.split()[1] for text in told(caplog)[-2:]] == ["refused_more", "refused"]


async def test_an_attacker_takes_no_room_in_the_queue(log_alone: Audit, autojump_clock: MockClock) -> None:
    for _ in range(10 * QUEUE_MAX):
        log_alone.refused("token")
    assert len(log_alone._records) == REFUSED_A_WINDOW
    assert log_alone.lost == 0


async def test_a_sum_that_is_not_due_yet_is_told_at_the_stop(
    log_alone: Audit, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for number in range(REFUSED_A_WINDOW + 100):
        log_alone.refused("token", identity=f"cert:{number:04}" + "x" * 1000)
    await log_alone.close()
    assert told(caplog)[-1].startswith("audit: refused_more count=100 ")
    by = json.loads(told(caplog)[-1].split(" by=")[1])
    assert len(by) == NAMED_MAX
    assert all(len(name) < 50 for name in by)


async def test_ownerships_have_a_wide_budget_and_who_exceeded_it_is_named(
    log_alone: Audit, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    records: list[Record] = []
    monkeypatch.setattr(log_alone, "_tell_one", records.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(log_alone.run)
        for number in range(OWNERSHIPS_A_WINDOW + 3):
            log_alone.record("released", "LPT1", identity="user:anna" if number % 2 else "user:bob")
            if number % 1000 == 0:
                await trio.sleep(1)
        log_alone.record("granted", "LPT1")
        nursery.cancel_scope.cancel()
    await log_alone.close()
    assert [record.event for record in records] == ["released"] * OWNERSHIPS_A_WINDOW + ["granted", "released_more"]
    assert records[-1].fields["by"] == {"user:bob": 2, "user:anna": 1}


async def test_the_log_has_a_budget_and_the_file_has_all(
    audit: Audit, path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO, "lpt_service")
    for _ in range(LOGGED_A_WINDOW + 5):
        audit.record("event")
    await audit.close()
    assert len(entries(path)) == LOGGED_A_WINDOW + 5
    assert len(told(caplog)) == LOGGED_A_WINDOW + 1
    assert told(caplog)[-1].startswith("audit: 5 more records since ")


async def test_the_log_s_budget_is_new_every_minute(
    log_alone: Audit, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(log_alone.run)
        for _ in range(3):
            for _ in range(LOGGED_A_WINDOW + 5):
                log_alone.record("event")
            await trio.sleep(WINDOW_S + 1)
        nursery.cancel_scope.cancel()
    assert len(told(caplog)) == 3 * (LOGGED_A_WINDOW + 1)


# Reload


async def test_a_reload_changes_the_file_without_losing_lines(
    audit: Audit, path: Path, tmp_path: Path, disk: Disk, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await nursery.start(audit.run)
    audit.record("old")
    await until(lambda: entries(path) and not audit._lines)
    audit.record("waits")
    audit.reconfigure(AuditConfig(file=str(tmp_path / "new")))
    audit.record("new")
    await until(lambda: len(entries(tmp_path / "new")) == 2)
    assert [entry["event"] for entry in entries(path)] == ["old"]
    audit.reconfigure(AuditConfig())
    audit.record("back")
    await until(lambda: len(entries(path)) == 2)


async def test_a_reload_leaves_a_disk_that_hangs_or_is_full(
    audit: Audit,
    disk: Disk,
    tmp_path: Path,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    monkeypatch.setattr(audit_module, "STOP_TIMEOUT_S", 0.05)
    disk.may_write.clear()
    await nursery.start(audit.run)
    audit.record("one")
    await until(disk.hanging.is_set)
    monkeypatch.setattr(audit, "_open_file", AuditFile)
    audit.reconfigure(AuditConfig(file=str(tmp_path / "new")))
    await until(lambda: len(entries(tmp_path / "new")) == 1)
    audit.record("two")
    await until(lambda: len(entries(tmp_path / "new")) == 2)
    disk.may_write.set()


async def test_a_reload_changes_bounds_in_place(audit: Audit, disk: Disk, autojump_clock: MockClock) -> None:
    audit.reconfigure(AuditConfig(max_bytes=123_456, keep=3))
    file = audit._file
    assert file is disk.opened[0]
    assert (file.max_bytes, file.keep) == (123_456, 3)


async def test_a_reload_may_take_the_file_away(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(audit_module, "STOP_TIMEOUT_S", 0.05)
    audit = Audit(AuditConfig(file=str(tmp_path / "a")), VirtualClock(), None, open_file=disk.open)
    disk.may_write.clear()
    await nursery.start(audit.run)
    audit.record("one")
    await until(disk.hanging.is_set)
    audit.reconfigure(AuditConfig())
    assert audit.lost == 1, "as far as is known"
    await trio.sleep(1)
    audit.reconfigure(AuditConfig(file=str(tmp_path / "b")))
    disk.may_write.set()
    audit.record("two")
    await until(lambda: entries(tmp_path / "b"))
    assert [entry["event"] for entry in entries(tmp_path / "b")] == ["two"]


async def test_what_a_former_file_took_late_takes_nothing_off_the_new_lines(
    audit: Audit, tmp_path: Path, autojump_clock: MockClock
) -> None:
    late = audit_module._Attempt(AuditFile(tmp_path / "former", 100_000, 1), (b"old\n",))
    late.run()
    audit.record("new")
    audit._tell_some()
    audit._take_off(late)
    assert len(audit._lines) == 1


async def test_on_a_machine_s_clock_lines_are_written_within_a_moment(tmp_path: Path, mock_clock: MockClock) -> None:
    """The bound in the documentation: GATHER_S, in trio's time."""
    mock_clock.autojump_threshold = float("inf")
    audit = Audit(AuditConfig(), VirtualClock(), tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(audit.run)
        audit.record("one")
        await trio.testing.wait_all_tasks_blocked()
        assert not (tmp_path / audit_module.FILE_NAME).exists()
        mock_clock.jump(audit_module.GATHER_S)
        give_up_at = time.monotonic() + BOUND_S
        while not entries(tmp_path / audit_module.FILE_NAME):
            assert time.monotonic() < give_up_at
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
