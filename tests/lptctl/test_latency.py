"""lptctl latency, against a daemon with the loop-back plug, and without."""

from __future__ import annotations

import csv
import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lptctl.processes import BOUND_S, Lptctl, finish, read_terminal_until, running_daemon, started, wait_until

pytest.importorskip("click")
pytest.importorskip("rich")
from lpt_client import blocking

FEW = ("--count", "20", "--warm-up", "3")
# No interrupt counts as missing because the machine was slow.
PATIENT = "import lptctl.latency_measure; lptctl.latency_measure.INTERRUPT_TIMEOUT_S = 60.0"


@pytest.fixture
def is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, for lptctl in this process."""
    monkeypatch.setattr("lptctl.latency_measure.INTERRUPT_TIMEOUT_S", 60.0)


@pytest.fixture(scope="module")
def unplugged_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulated port without its loop-back plug."""
    config = tmp_path_factory.mktemp("unplugged") / "config.toml"
    config.write_text(
        '[server]\nlisten = ["lpt://127.0.0.1:0"]\n'
        '[[port]]\nname = "LPT1"\ndevice = "simulated"\nloopback = false\nenable_connect_interrupt = true\n'
    )
    with running_daemon("--config", str(config)) as daemon:
        yield daemon.url


def generated(port: blocking.Port) -> int:
    """How many interrupts the port has raised."""
    count = port.status()["interrupts"]["generated"]
    assert isinstance(count, int)
    return count


@pytest.mark.usefixtures("is_patient")
def test_a_run(lptctl: Lptctl, url: str, tmp_path: Path) -> None:
    samples_path, page_path = tmp_path / "samples.csv", tmp_path / "report.html"
    with blocking.open_port(url) as port:
        before = generated(port)
        result = lptctl("latency", *FEW, "--csv", str(samples_path), "--html", str(page_path), url=url)
        assert generated(port) - before == 1 + 1 + 3 + 20  # the wire, the trial, the warm-up, the samples
        assert port.status()["owner"] is None
        assert port.status()["registered"] == 0
        assert port.status()["counters"]["forced_releases"] == 0
    assert (result.code, result.err) == (0, "")
    assert "20 round trips" in result.out
    assert "interrupts: 0 missing, 0 merged with others, 0 stray, 0 told lost" in result.out
    rows = list(csv.DictReader(samples_path.read_text().splitlines()))
    assert [row["index"] for row in rows] == [str(number) for number in range(1, 21)]
    parts = ("client_to_line_ns", "line_to_interrupt_ns", "interrupt_to_client_ns")
    for row in rows:
        assert all(int(row[name]) > 0 for name in parts)
        assert sum(int(row[name]) for name in parts) == int(row["latency_ns"])
    assert "n = 20, " in page_path.read_text()


@pytest.mark.usefixtures("is_patient")
def test_json(lptctl: Lptctl, url: str) -> None:
    result = lptctl("latency", *FEW, "--json", url=url)
    map_ = json.loads(result.out)
    assert (result.code, result.err) == (0, "")
    assert (map_["samples"], map_["edges"], map_["missing"], map_["line"]) == (20, 20, 0, "D3")
    assert (map_["kind"], map_["url"], map_["cut_short"]) == ("simulated", url, None)
    times = map_["round_trip_us"]
    assert 0 < times["min"] <= times["p50"] <= times["p90"] <= times["max"]


@pytest.mark.usefixtures("is_patient")
@pytest.mark.parametrize("before", [0xA5, 0x5A])
def test_the_lines_are_left_as_they_were(lptctl: Lptctl, url: str, before: int) -> None:
    with blocking.open_port(url) as port:
        with port.allocated():
            port.write_data(before)
        assert lptctl("latency", *FEW, url=url).code == 0
        assert port.read_data() == before


# The wire


def test_no_wire_is_4_and_says_what_to_do(lptctl: Lptctl, unplugged_url: str) -> None:
    result = lptctl.fails("latency", *FEW, url=unplugged_url)
    assert result.code == 4
    assert "nAck does not follow D3: this simulated port has no loop-back plug" in result.err
    assert "lptd serve --simulate" in result.err
    with blocking.open_port(unplugged_url) as port:
        assert port.status()["owner"] is None


def test_another_line_is_4_and_nothing_is_measured(lptctl: Lptctl, url: str) -> None:
    result = lptctl.fails("latency", "--line", "d0", url=url)
    assert result.code == 4
    assert "nAck does not follow D0" in result.err
    assert "--line D3" in result.err


class Deaf:
    """A port with the wire in it, or not, and no interrupts."""

    def __init__(self, *, has_wire: bool, is_masked: bool = False) -> None:
        self._status: dict[str, Any] = {"kind": "ppdev", "interrupts": {"masked": is_masked}}
        self._has_wire = has_wire
        self._data = 0
        self.lost = 0

    def write_data(self, value: int) -> int:
        self._data = value
        return 0

    def read_status(self) -> int:
        return 0x40 if not self._has_wire or self._data & 0x08 else 0

    def status(self) -> dict[str, Any]:
        return self._status

    def next(self, timeout: float | None = None) -> None:
        return None


@pytest.mark.parametrize(
    ("port", "advice"),
    [
        (Deaf(has_wire=False), r"join D3 \(pin 5\) to nAck \(pin 10\) with a wire"),
        (Deaf(has_wire=True), r"no interrupt came within 1 s of D3 going high: .*\(IRQ\)"),
        (Deaf(has_wire=True, is_masked=True), "the daemon silences the port"),
    ],
)
def test_what_a_port_of_hardware_may_lack(port: Deaf, advice: str) -> None:
    from lptctl.latency_measure import Meter, Plan, check_wire
    from lptctl.outcome import TIMED_OUT, Failure

    meter = Meter(port, port, Plan(3, 1, 0, 0.0))
    with pytest.raises(Failure, match=advice) as caught:
        check_wire(port, meter, 3, 0)  # type: ignore[arg-type]  # as much of a port as it needs
    assert caught.value.exit_code == TIMED_OUT


# Ends before its time


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_shows_what_there_is(url: str, tmp_path: Path, number: signal.Signals) -> None:
    samples_path = tmp_path / "samples.csv"
    arguments = ("latency", "--count", "1000000", "--json", "--csv", str(samples_path))
    with blocking.open_port(url) as port:
        with port.allocated():
            port.write_data(0x21)
        before = generated(port)
        with started(*arguments, setting=PATIENT, url=url) as process:
            wait_until(lambda: generated(port) - before > 150)  # the warm-up is over
            process.send_signal(number)
            result = finish(process)
        assert port.read_data() == 0x21
        assert port.status()["owner"] is None
        assert port.status()["registered"] == 0
    map_ = json.loads(result.out)
    assert (result.code, result.err) == (-number, "")
    assert map_["cut_short"] == f"ended by {number.name}"
    assert map_["missing"] == 0
    assert 0 < map_["samples"] < 1_000_000
    assert len(samples_path.read_text().splitlines()) == 1 + map_["samples"]


def test_ctrl_c_in_a_pause(url: str) -> None:
    with blocking.open_port(url) as port:
        before = generated(port)
        with started("latency", "--warm-up", "0", "--interval", "1000", setting=PATIENT, url=url) as process:
            wait_until(lambda: generated(port) - before >= 3)  # the wire, the trial, the first sample
            process.send_signal(signal.SIGINT)
            result = finish(process)
    assert result.code == -signal.SIGINT
    assert "cut short after 1 of 10000: ended by SIGINT" in result.out


def test_a_lost_connection_is_3_after_what_there_is(tmp_path: Path) -> None:
    page_path = tmp_path / "report.html"

    with (
        running_daemon() as daemon,
        blocking.open_port(daemon.url) as port,
        started("latency", "--count", "1000000", "--html", str(page_path), setting=PATIENT, url=daemon.url) as process,
    ):
        wait_until(lambda: generated(port) > 150)  # the warm-up is over
        daemon.kill()
        result = finish(process)
    assert result.code == 3
    assert "cut short after " in result.out
    assert result.err.startswith("lptctl: connection lost: ")
    assert result.err.count("\n") == 1
    assert "Cut short after " in page_path.read_text()


def test_strays_are_no_samples() -> None:
    """A port that raises interrupts by itself as well: each edge has its own, and no other is taken for it."""
    with (
        running_daemon("--pulse-hz", "500") as daemon,
        started("latency", "--count", "300", "--json", setting=PATIENT, url=daemon.url) as process,
    ):
        result = finish(process)
    map_ = json.loads(result.out)
    assert result.code == 0
    assert map_["samples"] + map_["merged"] == map_["edges"] == 300
    assert map_["missing"] == 0
    assert map_["strays"] > 0


def test_ctrl_c_before_the_first_sample(url: str) -> None:
    with blocking.open_port(url) as port:
        before = generated(port)
        with started("latency", "--warm-up", "1000000", setting=PATIENT, url=url) as process:
            wait_until(lambda: generated(port) - before > 5)
            process.send_signal(signal.SIGINT)
            result = finish(process)
    assert result == (-signal.SIGINT, "", "lptctl: no sample was taken\n")


def test_a_second_signal_interrupts_and_an_ignored_one_stays_ignored() -> None:
    from lptctl.latency_command import _signals_noted

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with _signals_noted() as noted:
            signal.raise_signal(signal.SIGTERM)
            assert noted == []
            signal.raise_signal(signal.SIGINT)
            assert noted == [signal.SIGINT]
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_on_a_terminal_it_says_what_it_does(url: str) -> None:
    terminal, inner = os.openpty()
    with started("latency", *FEW, setting=PATIENT, url=url, on_terminal=inner) as process:
        os.close(inner)
        shown = read_terminal_until(terminal, "20 round trips, ")
        shown += read_terminal_until(terminal, "█")
        assert process.wait(BOUND_S) == 0
    os.close(terminal)
    assert "measuring 20 round trips; Ctrl-C ends it" in shown


# Interrupts that do not come


@pytest.fixture
def masking_url(tmp_path: Path) -> Iterator[str]:
    """A port that is silenced for a second or two after its sixth interrupt in a second."""
    config = tmp_path / "config.toml"
    config.write_text(
        '[server]\nlisten = ["lpt://127.0.0.1:0"]\n'
        '[[port]]\nname = "LPT1"\ndevice = "simulated"\nenable_connect_interrupt = true\nmax_interrupt_rate_hz = 5\n'
    )
    with running_daemon("--config", str(config)) as daemon:
        yield daemon.url


def test_interrupts_that_do_not_come_are_counted(lptctl: Lptctl, masking_url: str) -> None:
    result = lptctl("latency", "--count", "15", "--warm-up", "0", "--json", url=masking_url)
    map_ = json.loads(result.out)
    assert (result.code, map_["edges"], map_["cut_short"]) == (0, 15, None)
    assert map_["missing"] >= 1
    assert map_["samples"] + map_["missing"] + map_["merged"] == 15
    assert map_["marks"]["masked"] >= 1


def test_too_many_in_a_row_end_the_run_after_what_there_is(
    lptctl: Lptctl, masking_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lptctl.latency_measure.MISSING_IN_A_ROW_MAX", 1)
    result = lptctl("latency", "--warm-up", "0", url=masking_url)
    assert result.code == 4
    assert "cut short after " in result.out
    assert "interrupts: 1 missing, " in result.out
    assert result.err == "lptctl: ended early: 1 interrupts in a row did not come; is the wire still there?\n"


def test_lines_that_cannot_be_set_back_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    from lpt_client.errors import DeviceFailed
    from lptctl.latency_measure import line_kept

    class Failing:
        """A port whose lines cannot be driven any more."""

        is_connected = True
        grant = 7

        def read_data(self) -> int:
            return 0x2A

        def write_data(self, value: int) -> int:
            raise DeviceFailed(0xC0000185, "burnt")

    with line_kept(Failing()) as before:  # type: ignore[arg-type]  # as much of a port as it needs
        assert before == 0x2A
    assert "lptctl: the data lines could not be set back to 0x2a: STATUS_IO_DEVICE_ERROR" in capsys.readouterr().err


# Files


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_a_file_that_cannot_be_written_is_2_before_anything_is_done(
    lptctl: Lptctl, url: str, tmp_path: Path, option: str
) -> None:
    with blocking.open_port(url) as port:
        grants = port.status()["counters"]["grants"]
        for path in (tmp_path / "none" / "file", tmp_path, "\0"):
            result = lptctl.fails("latency", option, str(path), url=url)
            assert result.code == 2
            assert "cannot be written: " in result.err
        assert port.status()["counters"]["grants"] == grants


def test_both_into_one_file_is_2(lptctl: Lptctl, url: str, tmp_path: Path) -> None:
    result = lptctl("latency", "--csv", str(tmp_path / "file"), "--html", str(tmp_path / "." / "file"), url=url)
    assert result.code == 2
    assert "name the same file" in result.err


def test_a_run_that_fails_leaves_files_as_they_were(lptctl: Lptctl, unplugged_url: str, tmp_path: Path) -> None:
    kept, new = tmp_path / "kept.csv", tmp_path / "new.html"
    kept.write_text("of yesterday")
    assert lptctl.fails("latency", "--csv", str(kept), "--html", str(new), url=unplugged_url).code == 4
    assert kept.read_text() == "of yesterday"
    assert not new.exists()


@pytest.mark.usefixtures("is_patient")
def test_a_file_of_yesterday_is_replaced(lptctl: Lptctl, url: str, tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    path.write_text("of yesterday\n" * 1000)
    assert lptctl("latency", *FEW, "--csv", str(path), url=url).code == 0
    assert len(path.read_text().splitlines()) == 21


@pytest.mark.usefixtures("is_patient")
def test_a_full_disk_is_told_after_what_was_measured(lptctl: Lptctl, url: str) -> None:
    full = Path("/dev/full")
    if not (full.exists() and stat.S_ISCHR(full.stat().st_mode)):
        pytest.skip("this system has no /dev/full")
    result = lptctl("latency", *FEW, "--csv", str(full), url=url)
    assert result.code == 5
    assert "20 round trips" in result.out
    assert result.err.startswith("lptctl: /dev/full could not be written: ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stderr"])
def test_a_file_need_not_be_one_on_a_disk(url: str, path: str) -> None:
    with started("latency", *FEW, "--csv", path, setting=PATIENT, url=url) as process:
        result = finish(process)
    assert result.code == 0
    assert len(result.err.splitlines()) == (0 if path == "/dev/null" else 21)


def test_bars_in_letters_that_the_output_has(url: str) -> None:
    with started("latency", *FEW, setting=PATIENT, url=url, PYTHONIOENCODING="ascii", PYTHONUTF8="0") as process:
        result = finish(process)
    assert result.code == 0
    assert "#" in result.out
    assert "\\" not in result.out


@pytest.mark.parametrize(
    "arguments",
    [("--count", "0"), ("--count", "1000001"), ("--interval", "-1"), ("--interval", "nan"), ("--line", "D8")],
)
def test_wrong_usage_is_2(lptctl: Lptctl, arguments: tuple[str, ...]) -> None:
    result = lptctl("latency", *arguments, url="lpt://127.0.0.1:1")  # where nobody listens
    assert result.code == 2
    assert "Error: " in result.err


# The clock


def test_the_daemons_clock_is_ours_or_it_is_not(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lpt_client.operations import Clock
    from lptctl.latency_measure import clock_ns, has_our_clock

    class Elsewhere:
        """A port whose daemon's clock is ahead by what a machine that began a minute earlier is."""

        def ping(self) -> Clock:
            return Clock(clock_ns() + 60 * 10**9, 0)

    assert not has_our_clock(Elsewhere())  # type: ignore[arg-type]  # as much of a port as it needs
    with blocking.open_port(url) as port:
        assert has_our_clock(port)
        monkeypatch.setattr("lptctl.latency_measure._MONOTONIC", "another system's clock")
        assert not has_our_clock(port)
