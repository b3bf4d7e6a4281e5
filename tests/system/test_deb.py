"""The Debian package as a file: what is in it, twice the same bytes, lintian is content. Installed: tests/vm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.debian.build import debian_version
from lpt_service import __version__

PROJECT = Path(__file__).parent.parent.parent
BUILD = PROJECT / "deploy/debian/build.py"
DEBIAN_PYTHON = "/usr/bin/python3"
# What is meant so: no address of ours, libraries as PyPI has them with byte code, a configuration with secrets.
TOLERATED = (
    "bogus-mail-host",
    "bogus-mail-host-in-debian-changelog",
    "embedded-library",
    "package-installs-python-pycache-dir",
    "unstripped-binary-or-object",
)

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="a package is made on Debian"),
]


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path, **environment: str) -> Path:
    folder.mkdir()
    return Path(run(sys.executable, str(BUILD), str(folder), **environment).strip())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("deb") / "first")


@pytest.fixture(scope="module")
def tree(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    run("dpkg-deb", "--raw-extract", str(package), str(folder))
    return folder


def test_two_builds_give_the_same_bytes(package: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "second", PYTHONHASHSEED="7", TZ="Asia/Tokyo")
    assert again.name == package.name
    assert again.read_bytes() == package.read_bytes()
    print(f"{package.name}: {package.stat().st_size / 1e6:.1f} MB")


@pytest.mark.parametrize(
    ("version", "revision", "expected"),
    [
        ("0.2.0", "2", "0.2.0-2~deb12"),
        ("0.2.0rc1", "1", "0.2.0~rc1-1~deb12"),
        ("0.2.0.dev3", "1", "0.2.0~dev3-1~deb12"),
    ],
)
def test_what_comes_before_a_release_sorts_before_it(version: str, revision: str, expected: str) -> None:
    assert debian_version(version, revision, "12") == expected
    if expected != "0.2.0-2~deb12":
        run("dpkg", "--compare-versions", expected, "lt", "0.2.0-1~deb12")


def test_control_fields(package: Path) -> None:
    def field(name: str) -> str:
        return run("dpkg-deb", "--field", str(package), name).strip()

    minor = int(run(DEBIAN_PYTHON, "-c", "import sys; print(sys.version_info[1])"))
    assert field("Package") == "lptd"
    assert field("Version").startswith(f"{__version__}-1~deb")
    assert field("Architecture") == run("dpkg", "--print-architecture").strip()
    assert f"python3 (>= 3.{minor}), python3 (<< 3.{minor + 1}~), systemd" in field("Depends")
    assert 1000 < int(field("Installed-Size")) < 100_000


def test_what_is_inside(tree: Path) -> None:
    assert (tree / "DEBIAN/conffiles").read_text() == "/etc/lptd/config.toml\n"
    assert (tree / "etc/lptd/config.toml").stat().st_mode & 0o777 == 0o640
    listed = (tree / "usr/share/doc/lptd/bundled.txt").read_text()
    for name in ("msgpack", "pydantic", "trio", "click"):
        assert f"\n{name} " in listed
        assert any((tree / "usr/share/doc/lptd/licences" / name).iterdir())
    for name in ("hatchling", "editables", "pytest"):
        assert name not in listed, "is for building"
    assert not [path for path in tree.rglob("*") if path.is_file() and path.stat().st_mode & 0o022]
    for path in (PROJECT / "deploy/systemd").iterdir():
        assert (tree / "usr/lib/systemd/system" / path.name).read_bytes() == path.read_bytes()


def test_its_programs_run_with_debians_python_and_leave_no_trace(tree: Path) -> None:
    before = set(tree.rglob("*"))
    for name in ("lptd", "lptctl"):
        text = (tree / "usr/bin" / name).read_text()
        assert text.startswith(f"#!{DEBIAN_PYTHON} -IB\n")
        program = tree.parent / name
        program.write_text(text.replace("/usr/lib/lptd", f"{tree}/usr/lib/lptd"))
        program.chmod(0o755)
        assert run(str(program), "--version") == f"{name}, version {__version__}\n"
    assert set(tree.rglob("*")) == before
    refused = subprocess.run([tree.parent / "lptctl", "status", "--url", "lpt+unix:///no/such"], capture_output=True)
    assert refused.returncode == 3, "an exit code is handed on"


def test_scripts_are_of_the_plain_shell(tree: Path) -> None:
    for path in (*(tree / "DEBIAN").glob("p*"), tree / "usr/lib/lptd/restart-when-idle"):
        run("sh", "-n", str(path))


def test_lintian(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("needs lintian")
    run("lintian", "--fail-on", "error", "--suppress-tags", ",".join(TOLERATED), str(package))
