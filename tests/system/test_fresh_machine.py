"""On a machine that has nothing yet, with the oldest pip of each Python, what is installed is what the lock files say,
although the index also serves newer versions of everything.
"""

from __future__ import annotations

import email.parser
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename

from deploy.debian import lock_file
from tests.locks import LOCKS, PROJECT, everything_lacking

PYTHONS: Final = LOCKS["requirements-oldest-pip.lock"].pythons
PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-qq")
NEWER: Final = "9999"
TIMEOUT_S: Final = 300
# Stamps of the Makefile, each in a folder that a variable names; which lock files are in it then.
STAMPS: Final = {
    ("VENV", Path("venv/.dev")): ("requirements.lock", "requirements-dev.lock"),
    ("BENCH_VENV", Path("bench/.run")): ("requirements-bench.lock",),
    ("UV_VENV", Path("uv/.run")): ("requirements-uv.lock",),
}
STAMPS_OF_SDK: Final = {("SDK_VENV", Path("sdk/.run")): ("requirements-sdk.lock",)}

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def run(*command: str | Path, cwd: Path = PROJECT, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@cache
def find_python(version: str) -> str:
    """Where a Python is, or nothing."""
    done = subprocess.run(
        ["bash", "-c", f". tests/system/pythons.sh; find_python {version}"], cwd=PROJECT, capture_output=True, text=True
    )
    return done.stdout.strip()


def locked(lock: str, python: str) -> list[lock_file.Locked]:
    return lock_file.select(lock_file.read(PROJECT / lock), lock_file.environment(python))


class Index(NamedTuple):
    """A folder that pip takes for an index, `url`; `files` has the wheels that the lock files mean."""

    url: str
    files: Path

    def metadata(self) -> dict[str, list[str]]:
        """What each locked package requires, as its wheel says."""
        found: dict[str, list[str]] = {}
        for path in self.files.glob("*.whl"):
            name, version, *_ = parse_wheel_filename(path.name)
            if str(version) != NEWER:
                with zipfile.ZipFile(path) as wheel:
                    (entry,) = (each for each in wheel.namelist() if each.endswith(".dist-info/METADATA"))
                    text = wheel.read(entry).decode()
                found[name] = email.parser.Parser().parsestr(text).get_all("Requires-Dist", [])
        return found


def fetch(python: str, folder: Path) -> list[Path]:
    """Download what the lock files list for a Python."""
    folder.mkdir()
    entries = {entry for lock, purpose in LOCKS.items() if python in purpose.pythons for entry in locked(lock, python)}
    while entries:  # pip takes one version of each at a time
        batch = {entry.name: entry for entry in entries}.values()
        run(*PIP, "download", "--dest", folder, *lock_file.pip_options(batch, python, folder))
        entries -= {*batch}
    return [*folder.glob("*.whl")]


def make_newer(name: str, files: Path) -> None:
    """A wheel that is newer than whatever there is, and has nothing in it: who takes it gets nowhere."""
    folder = f"{name.replace('-', '_')}-{NEWER}.dist-info"
    with zipfile.ZipFile(files / f"{name.replace('-', '_')}-{NEWER}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {NEWER}\n")
        wheel.writestr(
            f"{folder}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{folder}/RECORD", "")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("index")
    files = folder / "files"
    files.mkdir()
    with ThreadPoolExecutor(max_workers=2) as pool:
        for fetched in pool.map(lambda python: fetch(python, folder / python), PYTHONS):
            for path in fetched:
                path.replace(files / path.name)  # the same file, if another Python has it, too
    names = {entry.name for lock in LOCKS for entry in lock_file.read(PROJECT / lock)}
    for name in names | {"setuptools", "wheel", "cython", "tomli"}:
        make_newer(name, files)
    for path in files.glob("*.whl"):
        page = folder / "simple" / parse_wheel_filename(path.name)[0] / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as text:
            text.write(f'<a href="{path.as_uri()}">{path.name}</a>\n')
    return Index((folder / "simple").as_uri(), files)


def test_no_lock_lacks_anything(index: Index) -> None:
    told = index.metadata()
    for lock in LOCKS:
        assert everything_lacking(lock, lambda name: told.get(name, ())) == []


def environment(index: Index, old_pip: Path) -> dict[str, str]:
    """A machine with this index alone, an empty cache, and an old pip in each environment that is made."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "MFLAGS"))}
    return kept | {
        "PYTHONPATH": str(old_pip),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.url,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_COMPILE": "1",  # sooner done
    }


def installed(python: Path, *folders: Path) -> set[tuple[str, str]]:
    """Names and versions in an environment, or in a folder of its own."""
    code = "import sys, importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions(path={}))"
    where = repr([str(folder) for folder in folders]) if folders else "sys.path"
    pairs = (each.split("==") for each in run(python, "-c", code.replace("{}", f"{where})")).split())
    return {(canonicalize_name(name), version) for name, version in pairs}


def versions(entries: Iterable[lock_file.Locked]) -> set[tuple[str, str]]:
    return {(entry.name, entry.version) for entry in entries}


@pytest.mark.parametrize("version", PYTHONS)
def test_what_is_installed_is_what_is_locked(version: str, index: Index, tmp_path: Path) -> None:
    python = find_python(version)
    if not python:
        pytest.skip(f"needs Python {version}")
    old_pip = locked("requirements-oldest-pip.lock", version)
    options = lock_file.pip_options(old_pip, version, tmp_path)
    run(*PIP, "install", "--target", tmp_path / "pip", *options)
    env = environment(index, tmp_path / "pip")
    stamps = STAMPS_OF_SDK if version == "3.10" else STAMPS
    folders = [f"{name}={tmp_path / stamp.parts[0]}" for name, stamp in (*STAMPS.keys(), *STAMPS_OF_SDK.keys())]
    run(
        "make",
        "-j2",
        f"PYTHON={python}",
        f"SDK_PYTHON={python}",
        *folders,
        *(tmp_path / stamp for _, stamp in stamps),
        env=env,
    )
    for (_, stamp), locks in stamps.items():
        venv_python = (tmp_path / stamp).parent / "bin/python"
        assert run(venv_python, "-m", "pip", "--version", env=env).split()[1] == old_pip[0].version
        wanted = versions(entry for lock in locks for entry in locked(lock, version))
        there = installed(venv_python)
        assert wanted <= there
        assert {name for name, _ in there - wanted} <= {"pip", "setuptools", "lpt-service"}


def test_what_is_installed_for_another_python_is_what_that_one_needs(index: Index, tmp_path: Path) -> None:
    """As make deb and the guest of the tests do it; here with packages of which another Python gets another version."""
    for version in ("3.11", "3.13"):
        entries = [each for each in locked("requirements-bench.lock", version) if each.name in ("numpy", "contourpy")]
        options = lock_file.pip_options(entries, version, tmp_path)
        run(*PIP, "install", "--target", tmp_path / version, *options, env=environment(index, tmp_path / "none"))
        assert installed(Path(sys.executable), tmp_path / version) == versions(entries)
        assert len(entries) == 2
