"""Standard output that keeps nobody waiting: what is written is read in order, or missed by number."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lpt_service import output as module
from lpt_service.output import BackgroundOutput, background_output, unblocking_copy

BOUND_S = 30


class Pipe:
    """A pipe, and a BackgroundOutput that writes to it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.output = BackgroundOutput(self.writing)
        self._text = b""

    def fill(self) -> None:
        """From now on it takes nothing until it is read."""
        os.set_blocking(self.writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"." * 65536)
        os.set_blocking(self.writing, True)

    def settle(self) -> None:
        """Wait until its thread has done what it can."""
        while self.output._waiting_bytes:
            time.sleep(0.001)

    def read_until(self, end: str) -> str:
        """Read to `end`; what came before it, the filling left out."""
        while not (text := self._text.decode().lstrip(".")).endswith(end):
            assert select.select([self.reading], [], [], BOUND_S)[0], text
            self._text += os.read(self.reading, 1 << 16)
        self._text = b""
        return text

    def close(self) -> None:
        """Let the thread get on, and close."""
        os.set_blocking(self.reading, False)
        while not self.output.drain(0.01):
            with suppress(BlockingIOError):
                os.read(self.reading, 1 << 20)
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lines_come_whole_and_in_order(pipe: Pipe) -> None:
    lines = [f"line {number} é\n" for number in range(1000)]
    for line in lines:
        print(line, end="", file=pipe.output, flush=True)
    assert pipe.read_until(lines[-1]) == "".join(lines)
    assert pipe.output.drain(BOUND_S)


def test_what_was_written_is_there_when_the_writer_goes_on(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        output = BackgroundOutput(file.fileno())
        for number in range(100):
            output.write(f"{number}\n")
            assert (tmp_path / "log").read_text().endswith(f"{number}\n") or output._is_behind


def test_what_no_encoding_has_is_written_as_its_number(pipe: Pipe) -> None:
    print("\udcff", file=pipe.output)
    assert pipe.read_until("\n") == "\\udcff\n"


def test_who_writes_does_not_wait_and_lines_beyond_the_bound_are_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_MAX_BYTES", 1000)
    pipe.fill()
    for number in range(200):
        print(f"line {number:04}\n", end="", file=pipe.output)  # 10 bytes
        assert pipe.output._is_behind, "the first one waits for a moment, the others not at all"
    kept = "".join(f"line {number:04}\n" for number in range(100))
    assert pipe.read_until("line 0099\n") == kept
    pipe.settle()
    assert not pipe.output._is_behind
    print("on", file=pipe.output)
    assert pipe.read_until("on\n") == "lptd: 100 lines are missing here: they could not be written\non\n"


def test_what_is_missing_at_the_end_is_told_too(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MAX_BYTES", 10)
    pipe.fill()
    print("kept", file=pipe.output)
    print("this one is lost", file=pipe.output)
    assert pipe.read_until("kept\n") == "kept\n"
    assert pipe.output.drain(BOUND_S)
    assert pipe.read_until("written\n") == "lptd: 1 lines are missing here: they could not be written\n"


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    with open("/dev/full", "wb") as full:
        output = BackgroundOutput(full.fileno())
        print("lost", file=output)
        assert output.drain(BOUND_S)


def test_it_goes_on_when_the_disk_has_room_again(pipe: Pipe) -> None:
    with open("/dev/full", "wb") as full:
        aside = os.dup(pipe.writing)
        os.dup2(full.fileno(), pipe.writing)
        print("lost", file=pipe.output)
        print("lost", file=pipe.output)
        pipe.settle()
        os.dup2(aside, pipe.writing)
        os.close(aside)
    print("on", file=pipe.output)
    assert pipe.read_until("on\n") == "lptd: 2 lines are missing here: they could not be written\non\n"


@pytest.mark.parametrize("is_open", [True, False])
def test_a_reader_that_has_gone_and_a_descriptor_that_is_closed(is_open: bool) -> None:
    reading, writing = os.pipe()
    output = BackgroundOutput(writing)
    os.close(reading)
    if not is_open:
        os.close(writing)
    print("lost", file=output)
    assert output.drain(BOUND_S)
    if is_open:
        os.close(writing)


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    pipe.fill()
    os.set_blocking(pipe.writing, False)
    print("kept", file=pipe.output)
    assert not pipe.output.drain(0.01)
    assert pipe.read_until("kept\n") == "kept\n"
    assert pipe.output.drain(BOUND_S)


def test_the_standard_streams_are_put_back(capfd: pytest.CaptureFixture[str]) -> None:
    former = sys.stdout, sys.stderr
    with background_output():
        print("out")
        print("err", file=sys.stderr)
        assert isinstance(sys.stdout, BackgroundOutput)
        assert isinstance(sys.stderr, BackgroundOutput)
        assert (sys.stdout.fileno(), sys.stderr.fileno(), sys.stderr.writable()) == (1, 2, True)
        assert not sys.stderr.isatty()
    assert (sys.stdout, sys.stderr) == former
    assert capfd.readouterr() == ("out\n", "err\n")


def test_an_unblocking_copy_does_not_wait_and_leaves_the_descriptor_as_it_was(pipe: Pipe) -> None:
    pipe.fill()
    copy = unblocking_copy(pipe.writing)
    with pytest.raises(BlockingIOError):
        os.write(copy, b"x")
    assert os.get_blocking(pipe.writing)
    os.close(copy)
    assert unblocking_copy(-1) == -1
