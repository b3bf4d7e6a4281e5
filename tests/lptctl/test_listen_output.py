"""What lptctl listen writes: its account of what was written, and the daemon's time of day."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.clients.fake_daemon import interrupt
from tests.lptctl.processes import finish, read_line, started
from tests.lptctl.scripted import scripted_daemon

pytest.importorskip("click")
pytest.importorskip("trio")
import trio

from lpt_client.events import Interrupt, Mark, Reconnected, SessionInfo, Sync
from lptctl.listen_output import Printer

SESSION = SessionInfo("lptd", "LPT1", 1, 2, 0, 0, {}, ())


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# The account


def interrupts(count: int) -> bytes:
    return b"".join(interrupt(seq) for seq in range(count))


def events_in(text: str) -> int:
    """Interrupts of whole lines."""
    return sum('"interrupt"' in line for line in text.splitlines() if line.endswith("}"))


def test_on_a_full_disk_only_what_was_written_counts_as_received(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    script = f'ulimit -f 128; exec "$@" > {path}'  # in blocks of 512 bytes: dash; or 1024
    with scripted_daemon() as daemon, started("listen", "--json", url=daemon.url, script=script) as process:
        daemon.wait_for("PARALLEL_CONNECT_INTERRUPT")
        daemon.send(interrupts(6000))
        code, _, err = finish(process)
    written = events_in(path.read_text())
    assert 0 < written < 6000
    told = re.fullmatch(
        r"lptctl: received (\d+), lost 0; (\d+) more came and are not written: "
        r"standard output could not be written: File too large\n",
        err,
    )
    assert told, err
    assert code == 5
    assert int(told[1]) == written
    assert int(told[1]) + int(told[2]) <= 6000


@pytest.mark.parametrize("as_json", [False, True])
def test_a_reader_that_stops_reading_holds_up_nothing_and_is_told_of_at_the_end(as_json: bool) -> None:
    reader, writer = os.pipe()
    setting = "import lptctl.listening as l; l.LAST_LINES_S = 0.2"
    options = ("--json",) if as_json else ()
    with (
        scripted_daemon() as daemon,
        started("listen", *options, url=daemon.url, stdout=writer, setting=setting) as process,
    ):
        os.close(writer)
        assert "connected" in os.read(reader, 4096).decode() if as_json else read_line(process.stderr)
        daemon.send(interrupts(6000))
        process.send_signal(signal.SIGINT)
        daemon.wait_for("PARALLEL_DISCONNECT_INTERRUPT")
        code, _, err = finish(process)
    told = re.search(r"received (\d+), lost 0; (\d+) more came and are not written: nobody reads the output\n$", err)
    with open(reader, "rb") as pipe:
        written = sum(b"interrupt" in line for line in pipe.read().split(b"\n")[:-1])
    assert told, err
    assert code == -signal.SIGINT
    assert int(told[1]) == written
    assert int(told[1]) + int(told[2]) == 6000


def test_a_reader_that_comes_back_gets_everything_and_the_account_adds_up() -> None:
    reader, writer = os.pipe()
    with (
        scripted_daemon() as daemon,
        started("listen", "--json", "--count", "6000", url=daemon.url, stdout=writer) as process,
        open(reader, encoding="ascii") as pipe,
    ):
        os.close(writer)
        assert "connected" in pipe.readline()
        daemon.send(interrupts(6000))
        lines = pipe.read().splitlines()
        result = finish(process)
    assert (result.code, result.err) == (0, "")
    assert len(lines) == 6001
    assert json.loads(lines[-1]) == {"event": "end", "received": 6000, "lost": 0, "unknown_periods": 0}


def test_a_reader_that_goes_is_noticed_before_there_is_anything_to_write() -> None:
    reader, writer = os.pipe()
    with scripted_daemon() as daemon, started("listen", url=daemon.url, stdout=writer) as process:
        os.close(writer)
        daemon.wait_for("PARALLEL_CONNECT_INTERRUPT")
        os.close(reader)
        assert finish(process).code == -signal.SIGPIPE


def test_a_second_signal_ends_the_waiting_for_a_reader() -> None:
    reader, writer = os.pipe()
    setting = "import lptctl.listening as l; l.LAST_LINES_S = 1000"
    with scripted_daemon() as daemon, started("listen", url=daemon.url, stdout=writer, setting=setting) as process:
        os.close(writer)
        read_line(process.stderr)
        daemon.send(interrupts(6000))
        process.terminate()
        daemon.wait_for("PARALLEL_DISCONNECT_INTERRUPT")
        process.terminate()
        assert finish(process).code == -signal.SIGTERM
    os.close(reader)


# Times


@pytest.mark.usefixtures("in_utc")
def test_events_as_text() -> None:
    printer = Printer(as_json=False)
    trio.run(connect, printer)
    assert " interrupt 7  count 3  status 0x78  control 0x1c" in printer.line(Interrupt(7, 3, 0, 0x78, 0x1C))
    assert "count" not in printer.line(Interrupt(7, 1, 0, 0x78, 0x1C))
    assert "masked: too many interrupts" in printer.line(Mark("masked", 7, 0, 0, 0))
    assert "kind 9: the port was not heard" in printer.line(Mark("kind 9", 7, 2**64 - 1, 0, 0))
    assert "overrun: 5 lost; the next interrupt is 12" in printer.line(Sync("overrun", 12, 5))
    assert "restarted: nobody knows how many were lost" in printer.line(Sync("restarted", 0, None))
    assert "reconnected" in printer.line(Reconnected(1, 2))


async def connect(printer: Printer) -> None:
    printer.connected(SESSION, 0)


@pytest.mark.usefixtures("in_utc")
def test_a_line_has_date_and_zone_to_the_microsecond() -> None:
    midnight = datetime(2026, 12, 1, tzinfo=UTC)

    async def lines() -> list[str]:
        printer = Printer(as_json=False)
        printer.clock.set(10**9, int(midnight.timestamp()) * 10**9)
        return [printer.line(Interrupt(1, 1, monotonic_ns, 0, 0)) for monotonic_ns in (10**9 - 1, 10**9, 2_000_001_000)]

    assert [line.split()[0] for line in trio.run(lines)] == [
        "2026-11-30T23:59:59.999999+00:00",
        "2026-12-01T00:00:00.000000+00:00",
        "2026-12-01T00:00:01.000001+00:00",
    ]


def test_a_clock_that_was_set_meanwhile_is_followed() -> None:
    """The daemon is asked again when a line is due, not for each one."""
    set_to = datetime(2030, 1, 1, tzinfo=UTC)
    setting = "import lptctl.listen_output as o; o._CLOCK_AGE_S = float('-inf')"
    with (
        scripted_daemon(ping=[0, 10**9]) as daemon,
        started("listen", "--count", "2", url=daemon.url, setting=setting, TZ="UTC") as process,
    ):
        read_line(process.stderr)
        daemon.send(interrupt(0, timestamp_ns=0))
        assert read_line(process.stdout).startswith("1970-01-01T00:00:01.000000+00:00  interrupt 0")
        daemon.daemon.answers["ping"] = [0, int(set_to.timestamp()) * 10**9]
        daemon.send(interrupt(1, timestamp_ns=86_400 * 10**9 - 1))
        shown = finish(process).out
    assert shown.startswith(f"{(set_to + timedelta(days=1)).isoformat(timespec='microseconds')}  interrupt 1")


def test_a_daemon_that_is_silent_about_its_clock_holds_up_no_line() -> None:
    setting = "import lptctl.listen_output as o; o._CLOCK_AGE_S = float('-inf'); o._CLOCK_TIMEOUT_S = 0.01"
    with (
        scripted_daemon(ping=None) as daemon,
        started("listen", "--count", "1", url=daemon.url, setting=setting) as process,
    ):
        read_line(process.stderr)
        daemon.send(interrupt(0))
        code, out, _ = finish(process)
    assert code == 0
    assert "interrupt 0" in out
