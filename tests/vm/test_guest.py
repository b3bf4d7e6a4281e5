"""The guest of the tests: what it has, and that the run goes on whatever the guest does.

A run that did not would be ended by the time-outs of the tests: how long it takes besides is the machine's affair.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vm.daemon import open_patiently
from tests.vm.guest import ANSWER_SLACK_S, COMMAND_PORT, DAEMON_PORT, TIMEOUT_S, Guest, GuestError
from tests.vm.host import PROJECT
from tests.vm.inside.check_pc_port import SENT

# The first test waits until the guest is built.
pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

HANG = (
    "echo -1 >/proc/sys/kernel/sched_rt_runtime_us; "
    "for processor in $(seq $(nproc)); do chrt --fifo 99 sh -c 'while :; do :; done' & done; wait"
)
SLEEPER = """
import time
from tests.vm.guest import Guest
with Guest() as guest:
    print(guest.pid, flush=True)
    time.sleep(600)
"""
TO_BE_UP_S = 40  # until systemd has something to say, also on a slow machine


def test_the_system_is_up(guest: Guest) -> None:
    assert guest.check("systemctl is-system-running") == "running\n"
    assert "0 loaded units" in guest.check("systemctl --failed")
    assert guest.check("cat /proc/1/comm") == "systemd\n"
    assert guest.check("ls /dev/parport*") == "/dev/parport0\n/dev/parport1\n"
    assert "parport0: PC-style at 0x378, irq 7" in guest.check("dmesg")


def test_commands(guest: Guest) -> None:
    assert guest.run("echo out; echo error >&2; exit 3") == (3, "out\nerror\n")
    with pytest.raises(GuestError, match=r"(?s)exit code 1: false.*console"):
        guest.check("false")
    with pytest.raises(GuestError, match=r"(?s)took longer than 1 s: echo begun.*\nbegun\n"):
        guest.run("echo begun; sleep 60", timeout_s=1)
    assert guest.check("echo still there") == "still there\n"


def test_nobody_else_runs_commands(guest: Guest) -> None:
    with socket.create_connection(guest.address(COMMAND_PORT), timeout=TIMEOUT_S) as stranger:
        stranger.sendall(b"guessed\n5\necho in\n")
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(1024) == b""


def test_files_go_in_and_results_come_back(guest: Guest) -> None:
    (guest.share / "in").write_text("hello\n", encoding="utf-8")
    guest.check("tr a-z A-Z </srv/share/in >/srv/share/out")
    assert (guest.share / "out").read_text(encoding="utf-8") == "HELLO\n"
    assert guest.check("cat pyproject.toml") == (PROJECT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_pc_port(guest: Guest) -> None:
    before = len(guest.pc_port_output())
    guest.check_tests("tests/vm/inside/check_pc_port.py")
    assert guest.pc_port_output()[before:] == SENT


def test_the_port_whose_peripheral_a_test_plays(guest: Guest) -> None:
    guest.check_tests("tests/vm/inside/check_virtual_port.py")


def test_the_daemon_in_the_guest_serves_the_host(guest: Guest) -> None:
    serve = f"/srv/venv/bin/lptd serve --simulate --insecure --listen lpt://0.0.0.0:{DAEMON_PORT}"
    guest.check(f"systemd-run --unit=lptd {serve}")
    told = "systemctl is-active lptd || journalctl --unit lptd"
    guest.check(f"until ss -ltn | grep :{DAEMON_PORT}; do {told}; sleep 0.2; done")
    host, port = guest.address(DAEMON_PORT)
    with open_patiently(f"lpt://{host}:{port}/LPT1") as lpt:
        assert lpt.status()["owner"] is None
    guest.check("systemctl stop lptd")


def test_it_shuts_down_in_order() -> None:
    with Guest() as guest:
        guest.power_off()
        with pytest.raises(GuestError, match="cannot be reached"):
            guest.run("true", timeout_s=5)


# What goes wrong


def test_a_guest_without_a_root_file_system(guest: Guest) -> None:
    with pytest.raises(GuestError) as caught, Guest(kernel_options="root=/dev/vdz"):
        pass
    assert str(caught.value).startswith("the guest ended\nQEMU ended, exit code 0")
    assert "initrd: there is no root file system on /dev/vdz" in str(caught.value)


def test_a_guest_that_is_never_ready(guest: Guest) -> None:
    with (
        pytest.raises(GuestError, match=rf"was not up after {TO_BE_UP_S} s\nthe console's last lines:\n"),
        Guest(kernel_options="systemd.mask=vm-ready.service systemd.show_status=1", boot_timeout_s=TO_BE_UP_S),
    ):
        pass


def test_a_guest_that_lives_too_long(guest: Guest) -> None:
    with pytest.raises(GuestError, match=r"killed: it lived longer than 2 s"), Guest(life_s=2):
        pass


def test_a_guest_that_panics() -> None:
    with Guest() as guest, pytest.raises(GuestError) as caught:
        guest.run("echo c >/proc/sysrq-trigger")
    assert "Kernel panic - not syncing: sysrq triggered crash" in str(caught.value)
    assert "sysrq_handle_crash" in str(caught.value).partition("the console's last lines:")[2]


def test_a_guest_that_hangs() -> None:
    with Guest() as guest:
        said = rf"the guest hangs: no answer within {2 + ANSWER_SLACK_S:g} s\nthe console's last lines:\n"
        with pytest.raises(GuestError, match=said):
            guest.run(HANG, timeout_s=2)
    with pytest.raises(ProcessLookupError):
        os.kill(guest.pid, 0)


def test_a_guest_ends_with_the_tests_process(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # what is killed cannot clean up
    command = [sys.executable, "-c", SLEEPER]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, env=environment) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        tests.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + TIMEOUT_S
    while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}/exe").exists()
