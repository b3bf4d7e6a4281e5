"""The project's lock files: what they list, and what of it a certain Python needs.

pip judges the markers of a lock (`; python_full_version < "3.12"`) by the Python that it runs on itself, also when it
is told to fetch for another one. So whoever installs for another Python takes its part of the lock from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from packaging.markers import Marker
from packaging.utils import canonicalize_name

_ENTRY: Final = re.compile(r"([\w.-]+)==(\S+)(?: ; (.+?))?((?: \\\n +--hash=\S+)+)\n")
_COMMENT: Final = re.compile(r"^ *#.*\n", re.MULTILINE)


class Locked(NamedTuple):
    """A package of a lock file: `marker` says on which Pythons and systems it is needed, `hashes` is pip's options."""

    name: str
    version: str
    marker: Marker | None
    hashes: str


def read(path: Path) -> list[Locked]:
    """Every package that a lock file lists. Raises ValueError if it has anything but pinned packages with hashes."""
    text = _COMMENT.sub("", path.read_text(encoding="utf-8"))
    rest = _ENTRY.sub("", text).strip()
    if rest:
        raise ValueError(f"{path.name}: neither a package with its version nor a hash: {rest.splitlines()[0]!r}")
    return [
        Locked(canonicalize_name(name), version, Marker(marker) if marker else None, hashes)
        for name, version, marker, hashes in _ENTRY.findall(text)
    ]


def environment(python: str, system: str = "linux") -> dict[str, str]:
    """What markers are judged by, for CPython `3.12` on `linux`, `darwin` or `win32`."""
    names = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system,
        "platform_system": names[system],
        "os_name": "nt" if system == "win32" else "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def select(entries: Iterable[Locked], judged_by: dict[str, str]) -> list[Locked]:
    """Those that are needed in an `environment`."""
    return [entry for entry in entries if entry.marker is None or entry.marker.evaluate({**judged_by})]


def pip_options(entries: Iterable[Locked], python: str, work: Path) -> list[str]:
    """Options by which `pip install` or `pip download` takes these as they are, for Python `3.12`.

    The folder `work` gets a file, which must be there as long as pip runs.
    """
    path = work / f"python-{python}.lock"
    path.write_text("".join(f"{entry.name}=={entry.version}{entry.hashes}\n" for entry in entries), encoding="utf-8")
    as_it_is = ["--require-hashes", "--no-deps", "--only-binary=:all:"]
    # What a package says of Pythons, pip compares with its own one, too.
    return [*as_it_is, "--python-version", python, "--ignore-requires-python", "-r", str(path)]
