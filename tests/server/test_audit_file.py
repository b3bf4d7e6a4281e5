"""The file of the audit trail: bounded, one whole line after the other, whatever the disk and others do to it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from lpt_service.server.audit_file import AuditFile
from tests.open_files import open_below

MAX_BYTES = 1000


class Disk:
    """Takes `room` bytes, and as a real one the last of them before it says that it is full."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, descriptor: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = os.write(descriptor, data[: self.room])
        self.room -= count
        return count


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def make(path: Path, max_bytes: int = MAX_BYTES, keep: int = 2) -> AuditFile:
    return AuditFile(path, max_bytes, keep)


def lines(*numbers: int, size: int = 100) -> list[bytes]:
    """Lines of `size` bytes that begin with a number."""
    return [f"{number} ".encode().ljust(size - 1, b".") + b"\n" for number in numbers]


def numbers(path: Path) -> list[int]:
    return [int(line.split()[0]) for line in path.read_bytes().splitlines()]


def files(path: Path) -> set[str]:
    return {each.name for each in path.parent.iterdir()}


# Appending


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_daemon_writes_and_its_group_reads_whatever_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert make(path).append(lines(1, 2)) == (2, None)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert numbers(path) == [1, 2]


def test_a_file_that_is_there_is_continued_and_keeps_its_mode(path: Path) -> None:
    path.write_bytes(b"0 \n")
    path.chmod(0o600)
    make(path).append(lines(1))
    assert numbers(path) == [0, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_torn_line_is_left_and_the_next_begins_anew(path: Path) -> None:
    path.write_bytes(b"0 \n1 to")
    make(path).append(lines(2))
    assert path.read_bytes() == b"0 \n1 to\n" + lines(2)[0]


def test_nothing_stays_open(path: Path) -> None:
    file = make(path)
    for number in range(30):
        file.append(lines(number))
    assert open_below(path.parent) == []


# A disk that is full


def test_of_a_disk_that_becomes_full_whole_lines_count(path: Path) -> None:
    disk = Disk(250)
    file = AuditFile(path, MAX_BYTES, 2, write=disk.write)
    written, error = file.append(lines(1, 2, 3, 4))
    assert written == 2
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    assert file.append(lines(3, 4))[0] == 0
    disk.room = 10_000
    assert file.append(lines(3, 4)) == (2, None)
    assert path.read_bytes() == b"".join(lines(1, 2)) + lines(3)[0][:50] + b"\n" + b"".join(lines(3, 4))


@pytest.mark.parametrize("room", range(0, 312, 13))
def test_however_much_room_there_is_no_line_is_lost_and_none_is_joined(path: Path, room: int) -> None:
    path.write_bytes(b"torn")
    disk = Disk(room)
    file = AuditFile(path, 10_000, 2, write=disk.write)
    wanted = lines(1, 2, 3)
    written, error = file.append(wanted)
    assert (error is None) == (written == 3)
    disk.room = 10_000
    assert file.append(wanted[written:]) == (3 - written, None)
    assert [line for line in path.read_bytes().splitlines(keepends=True) if line in wanted] == wanted


def test_a_disk_that_takes_nothing_and_says_nothing_is_full(path: Path) -> None:
    written, error = AuditFile(path, MAX_BYTES, 2, write=lambda descriptor, data: 0).append(lines(1))
    assert written == 0
    assert error is not None


# Rotation


def test_all_files_together_keep_the_bound(path: Path) -> None:
    file = make(path, keep=2)
    for number in range(100):
        file.append(lines(number))
        assert files(path) <= {"audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"}
        assert all(each.stat().st_size <= MAX_BYTES for each in path.parent.iterdir())
    found = [*numbers(Path(f"{path}.2")), *numbers(Path(f"{path}.1")), *numbers(path)]
    assert found == list(range(100 - len(found), 100))
    assert len(found) > 18


def test_many_lines_at_once_are_spread_over_files(path: Path) -> None:
    assert make(path, keep=9).append(lines(*range(35))) == (35, None)
    assert [len(numbers(Path(f"{path}{end}"))) for end in (".3", ".2", ".1", "")] == [10, 10, 10, 5]


def test_with_none_to_keep_the_file_begins_anew(path: Path) -> None:
    make(path, keep=0).append(lines(*range(12)))
    assert files(path) == {"audit.jsonl"}
    assert numbers(path) == [10, 11]


def test_a_torn_line_counts_for_the_bound(path: Path) -> None:
    path.write_bytes(b"x" * (MAX_BYTES - 100))
    make(path).append(lines(1))
    assert Path(f"{path}.1").stat().st_size == MAX_BYTES - 100
    assert numbers(path) == [1]


def test_when_fewer_are_to_be_kept_the_others_are_removed(path: Path) -> None:
    file = make(path, keep=5)
    file.append(lines(*range(60)))
    assert len(files(path)) == 6
    other = path.with_name("audit.jsonl.old")
    other.touch()
    file.keep = 1
    file.append(lines(*range(60, 71)))
    assert files(path) == {"audit.jsonl", "audit.jsonl.1", "audit.jsonl.old"}


def test_a_gap_is_filled_before_anything_is_removed(path: Path) -> None:
    file = make(path, keep=3)
    file.append(lines(*range(40)))
    Path(f"{path}.1").unlink()
    file.append(lines(40))
    assert [numbers(Path(f"{path}{end}"))[0] for end in (".3", ".2", ".1", "")] == [0, 10, 30, 40]


def test_a_smaller_size_holds_for_a_file_that_is_there(path: Path) -> None:
    file = make(path)
    file.append(lines(*range(8)))
    file.max_bytes = 500
    file.append(lines(8))
    assert numbers(path) == [8]


# What others do


def test_a_file_that_was_moved_or_removed_is_made_anew(path: Path) -> None:
    file = make(path)
    file.append(lines(1))
    path.rename(path.with_name("moved"))
    file.append(lines(2))
    path.unlink()
    file.append(lines(3))
    assert numbers(path.with_name("moved")) == [1]
    assert numbers(path) == [3]


def test_a_file_that_was_emptied_is_filled_from_its_beginning(path: Path) -> None:
    file = make(path)
    file.append(lines(1))
    os.truncate(path, 0)
    file.append(lines(2))
    assert path.read_bytes() == lines(2)[0]


def test_a_folder_that_comes_later(path: Path) -> None:
    file = make(path.parent / "later" / "audit.jsonl")
    written, error = file.append(lines(1))
    assert written == 0
    assert isinstance(error, FileNotFoundError)
    file.path.parent.mkdir()
    assert file.append(lines(1)) == (1, None)


def test_what_is_no_file_is_refused_and_never_waited_for(path: Path) -> None:
    os.mkfifo(path)
    for each in (path, Path("/dev/full"), path.parent, path.parent / "nul\0"):
        written, error = make(each).append(lines(1))
        assert written == 0
        assert error is not None
        assert open_below(path.parent) + open_below(Path("/dev/full")) == []
    assert files(path) == {"audit.jsonl"}
