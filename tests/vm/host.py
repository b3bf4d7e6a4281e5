"""Programs of the host that the guest is built with, and a cache of what they made."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).resolve().parent
CACHE: Final = PROJECT / ".cache/vm"

_SHOWN_LINES: Final = 15  # of a failed program's output
_KEPT_VERSIONS: Final = 2  # a process that looked up the one before may still be about to use it


class CannotBuildError(Exception):
    """The guest cannot be built on this machine, or not now; the text says why."""


def run_program(*command: str | Path, timeout_s: float = 900, cwd: Path | None = None) -> str:
    """Run a program of the host; what it printed on standard output.

    Raises:
        CannotBuildError: it is not there, failed, or took too long; with the last lines that it printed.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, env=_environment())
    except FileNotFoundError:
        raise CannotBuildError(f"{name} is not installed; tests/vm/packages.sh installs what is needed") from None
    except subprocess.TimeoutExpired:
        raise CannotBuildError(f"{name} took longer than {timeout_s:.0f} s") from None
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).splitlines()[-_SHOWN_LINES:]
        raise CannotBuildError("\n".join([f"{name} failed, exit code {done.returncode}:", *lines]))
    return done.stdout


def _environment() -> dict[str, str]:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # depmod, mke2fs
    return {**os.environ, "LC_ALL": "C.UTF-8", "PATH": path, "SOURCE_DATE_EPOCH": "0"}


def cached(name: str, made_from: Iterable[str | bytes], build: Callable[[Path], None]) -> Path:
    """The folder that `build` filled from these contents, or fills now.

    Built in a folder of another name and then renamed, so that half a build never counts. One process builds, the
    others wait for it.
    """
    digest = hashlib.sha256()
    for each in made_from:
        content = each.encode() if isinstance(each, str) else each
        digest.update(f"{len(content)} ".encode() + content)
    folder = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _remove_old(name)
            unfinished = Path(tempfile.mkdtemp(prefix=f"unfinished-{name}-", dir=CACHE))
            try:
                build(unfinished)
                unfinished.chmod(0o755)  # root builds, any user boots
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _remove_old(name: str) -> None:
    for abandoned in CACHE.glob(f"unfinished-{name}-*"):  # its process was killed: we have the lock
        shutil.rmtree(abandoned)
    newest_first = sorted(CACHE.glob(f"{name}-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in newest_first[_KEPT_VERSIONS - 1 :]:
        shutil.rmtree(folder)


def folder_contents(folder: Path) -> list[bytes]:
    """Path, mode and content of every file below a folder, in order: for a key of `cached`."""
    contents: list[bytes] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            contents += [f"{path.relative_to(folder)} {path.stat().st_mode & 0o777:o}".encode(), path.read_bytes()]
    return contents


def make_ext4(folder: Path, image: Path, *, spare_mib: int) -> None:
    """Make an image of a folder, with its owners and modes, and room for more."""
    size_kib = int(run_program("du", "-sk", folder).split()[0])
    size_mib = size_kib * 5 // 4 // 1024 + spare_mib
    run_program("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", folder, image, f"{size_mib}M")
