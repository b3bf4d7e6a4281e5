"""The cache of what the guest is built from, and programs that fail."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.vm import host
from tests.vm.host import CannotBuildError, cached, folder_contents, run_program


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


class Builder:
    """Counts how often it was asked to build."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, folder: Path) -> None:
        self.count += 1
        time.sleep(0.05)
        (folder / "made").write_text(str(self.count), encoding="utf-8")


def test_the_same_contents_are_built_once() -> None:
    build = Builder()
    first = cached("image", ["a", b"b"], build)
    assert cached("image", ["a", b"b"], build) == first
    assert (first / "made").read_text(encoding="utf-8") == "1"
    assert cached("image", ["ab"], build) != first
    assert build.count == 2


def test_half_a_build_never_counts(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("", encoding="utf-8")
        raise CannotBuildError("no")

    with pytest.raises(CannotBuildError):
        cached("image", ["a"], fail)
    (cache / "unfinished-image-killed").mkdir()
    assert [path.name for path in cached("image", ["a"], Builder()).iterdir()] == ["made"]
    assert list(cache.glob("unfinished-*")) == []


def test_two_at_a_time_build_once() -> None:
    build = Builder()
    threads = [threading.Thread(target=cached, args=("image", ["a"], build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.count == 1


def test_old_builds_are_removed(cache: Path) -> None:
    folders = []
    for at_s, content in enumerate(("a", "b", "c")):
        folders.append(cached("image", [content], Builder()))
        os.utime(folders[-1], (at_s, at_s))  # their order is that of their times
    assert {path for path in cache.iterdir() if path.is_dir()} == set(folders[-2:])


def test_names_modes_and_contents_of_a_folder_count(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    seen = []
    for content, mode in (("a", 0o644), ("b", 0o644), ("b", 0o755)):
        (folder / "file").write_text(content, encoding="utf-8")
        (folder / "file").chmod(mode)
        seen.append(folder_contents(folder))
    (folder / "file").rename(folder / "other")
    seen.append(folder_contents(folder))
    assert len({repr(each) for each in seen}) == 4


def test_a_program_that_fails_tells_its_last_lines() -> None:
    script = "import sys; print('out'); print('why', file=sys.stderr); sys.exit(3)"
    with pytest.raises(CannotBuildError, match=r"failed, exit code 3:\nout\nwhy$"):
        run_program(sys.executable, "-c", script)
    with pytest.raises(CannotBuildError, match=r"no-such-program is not installed; tests/vm/packages\.sh"):
        run_program("no-such-program")
    with pytest.raises(CannotBuildError, match=r"took longer than 0 s"):
        run_program("sleep", "60", timeout_s=0.1)
