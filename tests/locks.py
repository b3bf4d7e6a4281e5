"""What each lock file of the project is for, and whether it has all that is needed there."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.debian import lock_file

PROJECT: Final = Path(__file__).parent.parent
DAEMON_PYTHONS: Final = ("3.11", "3.12", "3.13")
SYSTEMS: Final = ("linux", "darwin", "win32")
_EXTRAS: Final = ("cli", "cert", "daemon")


class Purpose(NamedTuple):
    """What a lock is made from (as in `make lock`), and for which Pythons."""

    pythons: tuple[str, ...]
    extras: tuple[str, ...]
    groups: tuple[str, ...]


LOCKS: Final = {
    "requirements.lock": Purpose(DAEMON_PYTHONS, _EXTRAS, ("build",)),
    "requirements-dev.lock": Purpose(DAEMON_PYTHONS, _EXTRAS, ("build", "dev")),
    "requirements-bench.lock": Purpose(DAEMON_PYTHONS, _EXTRAS, ("build", "bench")),
    "requirements-sdk.lock": Purpose(("3.10",), (), ("sdk",)),
    "requirements-uv.lock": Purpose(DAEMON_PYTHONS, (), ("uv",)),
    "requirements-oldest-pip.lock": Purpose(("3.10", *DAEMON_PYTHONS), (), ("oldest-pip",)),
}


def needed_by_project(purpose: Purpose) -> list[Requirement]:
    """What pyproject.toml asks for."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    told = tomllib.loads(text)
    texts = [each for group in purpose.groups for each in told["dependency-groups"][group]]
    if purpose.extras:
        texts += told["project"]["dependencies"]
        texts += [each for extra in purpose.extras for each in told["project"]["optional-dependencies"][extra]]
    return [Requirement(each) for each in texts]


def lacks(lock: str, python: str, system: str, requires: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """What is needed by CPython `3.12` on `linux`, to the last, and not in the lock; and what is there twice.

    `requires(name)` is what the metadata of a locked package says that it needs.
    """
    environment = lock_file.environment(python, system)
    locked = lock_file.select(lock_file.read(PROJECT / lock), environment)
    there = {entry.name: entry for entry in locked}
    if len(there) != len(locked):
        yield f"twice: {sorted(entry.name for entry in locked if there[entry.name] is not entry)}"
    wanted = [(each, "") for each in needed_by_project(LOCKS[lock])]
    seen = set()
    while wanted:
        requirement, extra = wanted.pop()
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        entry = there.get(canonicalize_name(requirement.name))
        if entry is None or not requirement.specifier.contains(entry.version, prereleases=True):
            yield f"{requirement} (Python {python}, {system})"
            continue
        for each in requirement.extras | {""}:
            if (entry.name, each) not in seen:
                seen.add((entry.name, each))
                wanted += [(Requirement(text), each) for text in requires(entry.name)]


def everything_lacking(lock: str, requires: Callable[[str], Iterable[str]]) -> list[str]:
    """What a lock lacks, for every Python that it is for and every system."""
    return [
        each for python in LOCKS[lock].pythons for system in SYSTEMS for each in lacks(lock, python, system, requires)
    ]
