"""Names that are looked up slowly: time-outs and Ctrl-C end the waiting, and nobody waits for the look-up itself."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import lpt_client
from lpt_client import blocking
from lpt_client.names import LookUp, numeric
from tests.clients import slow_names
from tests.clients.blocking_harness import BOUND_S

SLOW = "lpt://slow.example/LPT1"


class Resolver:
    """In place of the system's: answers when it is told to."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.goes_on = threading.Event()
        self.answer: Any = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def getaddrinfo(self, host: str, port: int, **_options: Any) -> Any:
        self.threads.append(threading.current_thread())
        self.goes_on.wait(BOUND_S)
        if isinstance(self.answer, Exception):
            raise self.answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in self.answer]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    yield resolver
    resolver.goes_on.set()
    for thread in resolver.threads:
        thread.join(BOUND_S)


def interrupt_looking_up(resolver: Resolver) -> None:
    """Ctrl-C while a name is looked up. From another thread."""
    until_s = time.monotonic() + BOUND_S
    while not resolver.threads and time.monotonic() < until_s:
        time.sleep(0.001)
    time.sleep(0.01)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_the_look_up_is_part_of_the_time_to_connect(resolver: Resolver) -> None:
    for _ in range(3):
        with pytest.raises(lpt_client.ConnectFailed, match=r"slow\.example.*timed out"):
            blocking.open_port(SLOW, connect_timeout_s=0.05)
    assert len(resolver.threads) == 1, "all three wait for the same look-up"
    assert resolver.threads[0].daemon, "the end of the program does not wait for it"


async def test_the_look_up_is_part_of_the_time_to_connect_under_trio(resolver: Resolver) -> None:
    tokens = trio.to_thread.current_default_thread_limiter().borrowed_tokens
    for _ in range(3):
        with pytest.raises(lpt_client.ConnectFailed, match=r"slow.example.*no answer within 0.05 s"):
            async with lpt_client.open_port(SLOW, connect_timeout_s=0.05):
                pass
    assert len(resolver.threads) == 1
    assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == tokens


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of POSIX")
def test_ctrl_c_does_not_wait_for_the_look_up(resolver: Resolver) -> None:
    thread = threading.Thread(target=interrupt_looking_up, args=(resolver,), daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        blocking.open_port(SLOW, connect_timeout_s=BOUND_S)
    thread.join(BOUND_S)
    assert resolver.threads[0].is_alive()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of POSIX")
def test_ctrl_c_does_not_wait_for_the_look_up_under_trio(resolver: Resolver) -> None:
    async def main() -> None:
        async with lpt_client.open_port(SLOW, connect_timeout_s=BOUND_S):
            pass

    thread = threading.Thread(target=interrupt_looking_up, args=(resolver,), daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    thread.join(BOUND_S)
    assert resolver.threads[0].is_alive()
    resolver.goes_on.set()  # its answer finds nobody
    resolver.threads[0].join(BOUND_S)


def test_a_look_up_that_takes_longer_than_the_callers_poll(resolver: Resolver) -> None:
    """One call waits for a moment, the next goes on with the same look-up."""
    look_up = LookUp.of("slow.example", 5378)
    with pytest.raises(TimeoutError):
        look_up.wait(time.monotonic() + 0.01)
    resolver.answer = [("192.0.2.7", 5378)]
    resolver.goes_on.set()
    assert look_up.wait(time.monotonic() + BOUND_S) == [(socket.AF_INET, ("192.0.2.7", 5378))]
    assert LookUp.of("slow.example", 5378) is not look_up, "answers are not kept"


def test_where_no_thread_can_be_had(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver.answer = [("192.0.2.7", 5378)]
    resolver.goes_on.set()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert LookUp.of("some.example", 5378).wait(0) == [(socket.AF_INET, ("192.0.2.7", 5378))]
    resolver.threads.clear()


def test_numbers_are_not_looked_up(resolver: Resolver) -> None:
    assert numeric("192.0.2.7", 1) == [(socket.AF_INET, ("192.0.2.7", 1))]
    assert numeric("2001:db8::1", 1) == [(socket.AF_INET6, ("2001:db8::1", 1))]
    assert numeric("fe80::1%eth0", 1) is None
    assert numeric("lab-pc", 1) is None
    assert resolver.threads == []


def refused_port(sock: socket.socket) -> tuple[str, int]:
    sock.bind(("127.0.0.1", 0))
    return "127.0.0.1", int(sock.getsockname()[1])


async def test_the_next_address_is_tried_under_trio(resolver: Resolver) -> None:
    resolver.goes_on.set()
    with socket.create_server(("127.0.0.1", 0)) as good, socket.socket() as nobody:
        resolver.answer = [refused_port(nobody), good.getsockname()]
        with pytest.raises(lpt_client.ConnectFailed, match="no answer within"):  # it listens, and says nothing
            async with lpt_client.open_port(SLOW, connect_timeout_s=0.2):
                pass
        resolver.answer = [refused_port(nobody2 := socket.socket())]
        with nobody2, pytest.raises(lpt_client.ConnectFailed, match="refused"):
            async with lpt_client.open_port(SLOW):
                pass
    resolver.answer = []
    with pytest.raises(lpt_client.ConnectFailed, match="no address"):
        async with lpt_client.open_port(SLOW):
            pass


PROGRAMS = {
    "blocking": "from lpt_client import blocking; blocking.open_port('lpt://slow.example')",
    "trio": "import lpt_client, trio; trio.run(lpt_client.open_port('lpt://slow.example').__aenter__)",
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_ends_at_once(program: str, tmp_path: Path) -> None:
    code, said = slow_names.interrupt(["-c", PROGRAMS[program]], tmp_path)
    assert b"KeyboardInterrupt" in said
    assert code in (-signal.SIGINT, 1)
