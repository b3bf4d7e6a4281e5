"""Make the Debian package, lptd_VERSION_ARCHITECTURE.deb, for the release of Debian that this runs on.

    make deb [DEB_REVISION=2]                           in dist/
    DEB_REVISION=2 python deploy/debian/build.py FOLDER

The package has its Python libraries inside, the wheels of requirements.lock for Debian's own python3, so that it can be
installed without a network. Two builds of the same commit give the same bytes.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.debian import lock_file

HERE: Final = Path(__file__).parent
PROJECT: Final = HERE.parent.parent
DEBIAN_PYTHON: Final = "/usr/bin/python3"
LIBRARIES: Final = Path("usr/lib/lptd/python")
_PROJECT_NAME: Final = "lpt-service"
_EXTRAS: Final = ("daemon", "cli", "cert")
_TIMEOUT_S: Final = 900

# What is installed where, from deploy/.
_FILES: Final = {
    "systemd/lptd.service": "usr/lib/systemd/system/lptd.service",
    "systemd/lptd.socket": "usr/lib/systemd/system/lptd.socket",
    "sysusers.d/lptd.conf": "usr/lib/sysusers.d/lptd.conf",
    "tmpfiles.d/lptd.conf": "usr/lib/tmpfiles.d/lptd.conf",
    "modules-load.d/lptd.conf": "usr/lib/modules-load.d/lptd.conf",
    "udev/60-lptd.rules": "usr/lib/udev/rules.d/60-lptd.rules",
    "config.toml": "etc/lptd/config.toml",
    "debian/lptd": "usr/bin/lptd",
    "debian/lptctl": "usr/bin/lptctl",
    "debian/restart-when-idle": "usr/lib/lptd/restart-when-idle",
    "debian/copyright": "usr/share/doc/lptd/copyright",
}
_MODES: Final = {"etc/lptd/config.toml": 0o640}  # tokens; the maintainer script gives it to the group lpt


class BuildError(Exception):
    """The package cannot be made: the text says why, and what to do."""


class Target(NamedTuple):
    """What the package is for: `3.11`, `amd64`, `12`."""

    python: str
    architecture: str
    release: str


def main() -> None:
    """Build it into the folder that is named (dist/ if none is), and print its path."""
    result = Path(sys.argv[1] if len(sys.argv) > 1 else PROJECT / "dist").resolve()
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or _run("git", "log", "-1", "--format=%ct").strip()
    os.environ |= {"SOURCE_DATE_EPOCH": epoch, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    os.umask(0o022)
    target = find_target()
    version = debian_version(metadata.version(_PROJECT_NAME), os.environ.get("DEB_REVISION") or "1", target.release)
    with tempfile.TemporaryDirectory(prefix="lptd-deb-") as folder:
        tree = Path(folder) / "tree"
        _copy_files(tree)
        _install_libraries(tree / LIBRARIES, Path(folder), target)
        _describe_libraries(tree)
        _compile(tree)
        _write_changelog(tree, version, int(epoch))
        _write_control(tree, version, target)
        print(_pack(tree, result / f"lptd_{version}_{target.architecture}.deb", int(epoch)))


def find_target() -> Target:
    """The machine's Debian, and the version of its python3. Raises BuildError."""
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian" or "VERSION_ID" not in release:
        raise BuildError(f"a package is made on the release of Debian that it is for; this is {release.get('NAME')}")
    show_version = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = _run(DEBIAN_PYTHON, "-I", "-c", show_version).strip()
    if tuple(map(int, python.split("."))) < (3, 11):
        raise BuildError(f"lptd needs Python 3.11, Debian {release['VERSION_ID']} has {python}")
    return Target(python, _run("dpkg", "--print-architecture").strip(), release["VERSION_ID"])


def debian_version(version: str, revision: str, release: str) -> str:
    """`0.2.0rc1`, `1`, `12` → `0.2.0~rc1-1~deb12`: what comes before a release sorts before it."""
    upstream = re.sub(r"[.]?(a|b|rc|dev)(?=[0-9])", r"~\1", version)
    return f"{upstream}-{revision}~deb{release}"


def required_packages(python: str) -> set[str]:
    """Names of what the daemon and the command line need, to the last, as the locked packages themselves say."""
    environment = lock_file.environment(python)
    found: set[str] = set()
    wanted = [(_PROJECT_NAME, extra) for extra in _EXTRAS]
    while wanted:
        name, extra = wanted.pop()
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
                continue
            needed = canonicalize_name(requirement.name)
            if needed not in found:
                found.add(needed)
                wanted += [(needed, each) for each in requirement.extras or {""}]
    return found


# The tree


def _copy_files(tree: Path) -> None:
    for source, name in _FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE.parent / source, path)
        is_program = path.read_bytes().startswith(b"#!")
        path.chmod(_MODES.get(name, 0o755 if is_program else 0o644))


def _install_libraries(folder: Path, work: Path, target: Target) -> None:
    """The locked packages that are needed, hashes checked, and this project."""
    needed = required_packages(target.python)
    locked = lock_file.select(lock_file.read(PROJECT / "requirements.lock"), lock_file.environment(target.python))
    wanted = [entry for entry in locked if entry.name in needed]
    if len(wanted) != len(needed):
        raise BuildError("requirements.lock lacks something that is needed: make lock")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-qq", "install", "--no-compile"]
    pip += ["--target", str(folder)]
    _run(*pip, *lock_file.pip_options(wanted, target.python, work))
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(work))
    (wheel,) = work.glob("lpt_service-*.whl")
    _run(*pip, "--no-deps", str(wheel))
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for tests in list(folder.rglob("_tests")):  # of libraries that ship theirs
        shutil.rmtree(tests, ignore_errors=True)
    for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):  # pip's accounts: nothing here is pip's
        for path in folder.glob(f"*.dist-info/{name}"):
            path.unlink()


def _describe_libraries(tree: Path) -> None:
    """bundled.txt, and every licence."""
    documents = tree / "usr/share/doc/lptd"
    lines = ["Python libraries inside this package, as PyPI has them:", ""]
    for folder in sorted((tree / LIBRARIES).glob("*.dist-info"), key=lambda folder: folder.name.lower()):
        each = metadata.Distribution.at(folder)
        if each.name == _PROJECT_NAME:
            continue
        told = [each.metadata[key] for key in ("License-Expression", "License") if key in each.metadata]
        licence = told[0] if told else "see its licence"
        lines.append(f"{each.name} {each.version} ({licence.splitlines()[0]})")
        for path in _licences(folder):
            copy = documents / "licences" / each.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            path.unlink()
    lines += ["", f"What a compiled one has inside in its turn: /{LIBRARIES}/*.dist-info/sboms"]
    (documents / "bundled.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _licences(folder: Path) -> list[Path]:
    pattern = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", re.IGNORECASE)
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and pattern.match(path.name)]
    if not found:
        raise BuildError(f"{folder.name} has no licence that is found")
    return found


def _compile(tree: Path) -> None:
    """Byte code that Python checks against the source, not against its time, which dpkg does not keep."""
    options = ["-q", "--invalidation-mode", "checked-hash", "-s", str(tree), "-p", "/"]
    _run(DEBIAN_PYTHON, "-I", "-m", "compileall", *options, str(tree / LIBRARIES))


def _write_changelog(tree: Path, version: str, epoch: int) -> None:
    date = _run("date", "--utc", "--rfc-email", f"--date=@{epoch}").strip()
    path = tree / "usr/share/doc/lptd/changelog.Debian"
    path.write_text(
        f"lptd ({version}) unstable; urgency=medium\n\n  * What is new: CHANGELOG.md of the project.\n\n"
        f" -- the lpt-service contributors <lptd@localhost>  {date}\n",
        encoding="utf-8",
    )
    _run("gzip", "--best", "--no-name", str(path))


def _write_control(tree: Path, version: str, target: Target) -> None:
    folder = tree / "DEBIAN"
    folder.mkdir()
    for name in ("postinst", "prerm", "postrm", "conffiles"):
        shutil.copyfile(HERE / name, folder / name)
        (folder / name).chmod(0o644 if name == "conffiles" else 0o755)
    files = [path for path in sorted(tree.rglob("*")) if path.is_file() and folder not in path.parents]
    conffiles = (HERE / "conffiles").read_text(encoding="utf-8").split()
    sums = [str(path) for path in files if f"/{path.relative_to(tree)}" not in conffiles]
    listed = _run("md5sum", *(str(Path(path).relative_to(tree)) for path in sums), cwd=tree)
    (folder / "md5sums").write_text(listed, encoding="utf-8")
    major, minor = target.python.split(".")
    values = {
        "version": version,
        "architecture": target.architecture,
        "python": target.python,
        "next_python": f"{major}.{int(minor) + 1}~",
        "size_kib": str(sum((path.stat().st_size + 1023) // 1024 for path in files)),
    }
    text = (HERE / "control.in").read_text(encoding="utf-8")
    (folder / "control").write_text(text.format_map(values), encoding="utf-8")


def _pack(tree: Path, result: Path, epoch: int) -> Path:
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (epoch, epoch), follow_symlinks=False)
        if path.is_dir():
            path.chmod(0o755)
    _run("dpkg-deb", "--root-owner-group", "-Zxz", "--threads-max=1", "--build", str(tree), str(result))
    return result


def _run(*command: str, cwd: Path = PROJECT) -> str:
    """Run a program that must end well; what it printed. Raises BuildError."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_TIMEOUT_S)  # noqa: S603
    except FileNotFoundError as exc:
        raise BuildError(f"{command[0]} is not installed") from exc
    except subprocess.TimeoutExpired as exc:
        raise BuildError(f"{command[0]} took longer than {_TIMEOUT_S} s") from exc
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:6])}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    try:
        main()
    except BuildError as exc:
        sys.exit(f"make deb: {exc}")
