"""A virtual machine for a test: Debian with systemd, a PC's parallel port, and one whose peripheral the test plays.

    with Guest() as guest:
        print(guest.check("systemctl is-system-running"))

Whatever the guest does, the run ends in time: each wait has a deadline, the machine's whole life has one, and QEMU ends
with the process that started it. A failure tells the reason and the console's last lines.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from tests.vm.image import operating_system
from tests.vm.machine import forwarded_ports, machine_command
from tests.vm.payload import make_payload, python_environment

# Emulated, on a machine that may be slow and do other things too: these bounds are for a guest that hangs.
BOOT_TIMEOUT_S: Final = 400.0
LIFE_S: Final = 3 * 3600.0
TIMEOUT_S: Final = 300.0

COMMAND_PORT: Final = 2222  # vm-run.socket
DAEMON_PORT: Final = 5378

# After a command's own time-out, which the guest keeps: so much later a guest that is silent hangs.
ANSWER_SLACK_S: Final = 20.0
_POLL_S: Final = 0.05
_LAST_WORDS_S: Final = 2.0  # a guest that ends breaks off before it has written why
_CONSOLE_LINES: Final = 40  # a panic's report fits
_MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
_TIMED_OUT: Final = 124  # exit codes of timeout(1)
_KILLED: Final = 137


class GuestError(Exception):
    """The guest did not do what it should; the text says what happened and ends with the console's last lines."""


class Result(NamedTuple):
    """What a command in the guest came to; `output` has standard output and standard error, as they came."""

    exit_code: int
    output: str


class Guest:
    """A virtual machine while the context lasts.

    Attributes:
        share: a folder of the host, /srv/share in the guest, for results and files.
        pid: of QEMU.

    Resource handling: one QEMU process, killed when the context ends, and a folder in /tmp, removed then. QEMU ends too
    with the thread that entered the context.
    """

    def __init__(
        self,
        *,
        forwarded: Sequence[int] = (DAEMON_PORT,),
        kernel_options: str = "",
        boot_timeout_s: float = BOOT_TIMEOUT_S,
        life_s: float = LIFE_S,
    ) -> None:
        """Describe a guest; entering the context builds it if need be and boots it.

        Args:
            forwarded: TCP ports of the guest that `address` leads to. The guest reaches nothing outside.
            kernel_options: more of the kernel's command line; what comes last counts.
            boot_timeout_s: from the start of QEMU until systemd has settled.
            life_s: from the start of QEMU until it is killed, whatever goes on.
        """
        self._forwarded = [COMMAND_PORT, *forwarded]
        self._kernel_options = kernel_options
        self._boot_timeout_s = boot_timeout_s
        self._life_s = life_s

    def __enter__(self) -> Self:
        image, venv = operating_system(), python_environment()
        with contextlib.ExitStack() as ending:
            self._folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="lpt-vm-")))
            self.share = self._folder / "share"
            self.share.mkdir()
            self._secret = secrets.token_hex()
            with tempfile.TemporaryDirectory(prefix="lpt-vm-payload-") as work:
                make_payload(self._folder / "payload.ext4", Path(work), self._secret)
            command = machine_command(image, venv, self._folder, self._forwarded, self._kernel_options)
            log = ending.enter_context((self._folder / "qemu.log").open("wb"))
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            ending.callback(self._kill)
            self.pid = self._process.pid
            self._outlived = False
            timer = threading.Timer(self._life_s, self._kill_old)
            timer.daemon = True
            timer.start()
            ending.callback(timer.cancel)
            self._wait_until_ready()
            self._ending = ending.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.close()

    # What a test does with it

    def run(self, command: str, timeout_s: float = TIMEOUT_S) -> Result:
        """Run a command line of bash in the guest, as root, in /srv/project.

        Processes that it leaves behind are killed; for those that are to stay there is systemd-run.

        Raises:
            GuestError: it took longer than `timeout_s` (then what it printed is told); the guest hangs, or died.
        """
        answer = self._converse(command, timeout_s, timeout_s + ANSWER_SLACK_S)
        output, separator, exit_code = answer.rpartition(b"\0")
        text = output.decode(errors="backslashreplace")
        if not separator:
            raise self.failure(f"the guest broke off: {command}\n{answer.decode(errors='backslashreplace')}")
        if int(exit_code) in (_TIMED_OUT, _KILLED):
            raise self.failure(f"took longer than {timeout_s:g} s: {command}\n{text}")
        return Result(int(exit_code), text)

    def check(self, command: str, timeout_s: float = TIMEOUT_S) -> str:
        """Run a command that must end well; what it printed.

        Raises:
            GuestError: as in `run`, or its exit code was not 0.
        """
        result = self.run(command, timeout_s)
        if result.exit_code != 0:
            raise self.failure(f"exit code {result.exit_code}: {command}\n{result.output}")
        return result.output

    def address(self, port: int = DAEMON_PORT) -> tuple[str, int]:
        """Where the host reaches a forwarded TCP port of the guest."""
        return "127.0.0.1", self._host_ports[port]

    def pc_port_output(self) -> bytes:
        """All bytes that the emulated PC port (/dev/parport0) was given with a strobe, so far."""
        return (self._folder / "pc-port").read_bytes()

    def console(self) -> str:
        """All that the kernel and systemd wrote to the console, so far."""
        path = self._folder / "console"
        return path.read_text(encoding="utf-8", errors="backslashreplace") if path.exists() else ""

    def check_tests(self, *arguments: str, timeout_s: float = 1200.0) -> str:
        """Run pytest in the guest, with these arguments; what it printed.

        Raises:
            GuestError: a test failed, or as in `run`.
        """
        options = ["-q", "-p", "no:cacheprovider", "-o", f"timeout={TIMEOUT_S:g}"]
        return self.check(shlex.join(["python", "-m", "pytest", *options, *arguments]), timeout_s)

    def power_off(self, timeout_s: float = TIMEOUT_S) -> None:
        """Shut the guest down in order.

        Raises:
            GuestError: it is not down in time.
        """
        self._converse("systemctl poweroff", timeout_s, timeout_s)  # the answer may be cut off
        self._wait_for(lambda: self._process.poll() is not None, timeout_s, "the guest does not shut down")

    def failure(self, reason: str) -> GuestError:
        """The error to raise: the reason, what became of the machine, and the console's last lines."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_S)
        lines = self.console().splitlines()[-_CONSOLE_LINES:]
        fate = [fate] if (fate := self._fate()) else []
        return GuestError("\n".join([reason, *fate, "the console's last lines:", *(f"  {line}" for line in lines)]))

    # Its life

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _kill_old(self) -> None:
        self._outlived = True
        self._process.kill()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._boot_timeout_s
        self._wait_for(self._learn_ports, self._boot_timeout_s, "QEMU does not start")
        self._wait_for(
            lambda: re.search(r"^guest: \w+", self.console(), re.MULTILINE) is not None,
            deadline - time.monotonic(),
            f"the guest was not up after {self._boot_timeout_s:g} s",
        )

    def _learn_ports(self) -> bool:
        ports = forwarded_ports(self._folder / "monitor", self._boot_timeout_s)
        self._host_ports = ports or {}
        return ports is not None

    def _wait_for(self, is_done: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_done():
            if self._process.poll() is not None:
                raise self.failure("the guest ended")
            if time.monotonic() > deadline:
                raise self.failure(complaint)
            time.sleep(_POLL_S)

    def _fate(self) -> str | None:
        """What became of the machine, if anything did."""
        panic = re.search(r"Kernel panic.*", self.console())
        if self._outlived:
            return f"killed: it lived longer than {self._life_s:g} s"
        if panic:
            return panic[0]
        if self._process.poll() is not None:
            return f"QEMU ended, exit code {self._process.returncode}: {self._qemu_says()}"
        return None

    def _qemu_says(self) -> str:
        return (self._folder / "qemu.log").read_text(encoding="utf-8", errors="backslashreplace").strip()

    def _converse(self, command: str, guest_timeout_s: float, timeout_s: float) -> bytes:
        """Send a command to the guest; all that comes back until the guest closes the connection."""
        request = f"{self._secret}\n{guest_timeout_s}\n{command}".encode()
        deadline = time.monotonic() + timeout_s
        answer = bytearray()
        try:
            with socket.create_connection(self.address(COMMAND_PORT), timeout=timeout_s) as connection:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65536):
                    answer += part
                    if len(answer) > _MAX_OUTPUT_BYTES:
                        raise self.failure(f"more output than {_MAX_OUTPUT_BYTES} bytes")
                    connection.settimeout(max(deadline - time.monotonic(), 0.001))
        except TimeoutError:
            raise self.failure(f"the guest hangs: no answer within {timeout_s:g} s") from None
        except OSError as exc:
            raise self.failure(f"the guest cannot be reached: {exc}") from None
        return bytes(answer)
