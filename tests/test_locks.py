"""The lock files are complete, and are installed as they are."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from deploy.debian import lock_file
from tests.locks import LOCKS, PROJECT, SYSTEMS, everything_lacking

MAKES = (".venvs/x/.dev", ".venvs/bench/.installed", ".venvs/sdk/.run", ".venvs/uv/.run", "test-sdk", "wheel", "deb")
AS_IT_IS = ("--require-hashes", "--no-deps", "--only-binary=:all:")


def test_there_is_a_purpose_for_each() -> None:
    assert {path.name for path in PROJECT.glob("*.lock")} == set(LOCKS)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_has_all_that_is_needed_to_the_last(lock: str) -> None:
    """As those of its packages say that are installed here; tests/system asks all."""

    def requires(name: str) -> list[str]:
        try:
            return metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another system or Python
            return []

    assert everything_lacking(lock, requires) == []


def test_what_is_lacking_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An extra that a package wants of another counts, also for one Python alone."""
    asked = {"pytest-cov": ["coverage[toml]>=7"], "coverage": ["tomli; python_version<'3.12' and extra == 'toml'"]}
    assert everything_lacking("requirements-dev.lock", lambda name: asked.get(name, ())) == [
        f'tomli; python_version < "3.12" and extra == "toml" (Python 3.11, {system})' for system in SYSTEMS
    ]
    assert "coverage>=99 (Python 3.13, linux)" in everything_lacking(
        "requirements-dev.lock", lambda name: ["coverage>=99"] if name == "pytest" else ()
    )


@pytest.mark.parametrize("text", ["trio\n", "trio==0.1\n", "trio>=0.1 \\\n    --hash=sha256:00\n", "-r other.lock\n"])
def test_what_is_not_pinned_with_hashes_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text(f"click==8.1 \\\n    --hash=sha256:00\n    # via rich\n{text}")
    with pytest.raises(ValueError, match=r"x\.lock: neither"):
        lock_file.read(path)


def test_a_part_of_a_lock_is_that_of_the_python_asked_for() -> None:
    for python, version in (("3.11", "22.3"), ("3.13", "24.2")):
        entries = lock_file.read(PROJECT / "requirements-oldest-pip.lock")
        (pip,) = lock_file.select(entries, lock_file.environment(python))
        assert (pip.name, pip.version) == ("pip", version)


def test_make_installs_a_lock_as_it_is_and_builds_with_what_is_locked() -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", "VENV=.venvs/x", *MAKES],
        cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    installs = [line for line in printed.splitlines() if re.search(r"\bpip\b.* install\b", line)]
    assert len([line for line in installs if ".lock" in line]) >= len(LOCKS) - 1  # the oldest pips are a test's
    for line in installs:
        wanted = AS_IT_IS if ".lock" in line else ("--no-deps",)
        assert all(option in line.split() for option in wanted), line
        assert "-e" not in line.split() or "--no-build-isolation" in line.split(), line
    for lock in LOCKS.keys() - {"requirements-oldest-pip.lock"}:
        assert any(line.endswith(f" -r {lock}") for line in installs), lock


def test_nothing_else_calls_pip() -> None:
    """But for these, whose options come from `lock_file.pip_options`."""
    calls = re.compile(r"-m[\"', ]+(pip|ensurepip|build)\b|bin/pip\b")
    found = {
        path.relative_to(PROJECT).as_posix()
        for folder in ("deploy", "tests", ".ci")
        for path in (PROJECT / folder).rglob("*")
        if path.is_file() and path.suffix in ("", ".py", ".sh") and calls.search(path.read_text(errors="replace"))
    }
    assert found - {"tests/test_locks.py", "tests/system/test_fresh_machine.py"} == {
        "deploy/debian/build.py",
        "tests/vm/payload.py",
    }
