"""What the guest gets in /srv: this project as it is now, what it needs of PyPI, and the test's parallel port."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from deploy.debian import lock_file
from tests.vm import debian
from tests.vm.host import HERE, PROJECT, CannotBuildError, cached, folder_contents, make_ext4, run_program

# Of requirements-dev.lock: large, and nothing that a test in the guest needs.
_LEFT_OUT: Final = {"ast-serialize", "grimp", "import-linter", "librt", "mypy", "pynvim", "ruff"}
_ENTRY_POINTS: Final = {"lptd": "lpt_service.__main__", "lptctl": "lptctl.__main__"}
_SPARE_MIB: Final = 128  # byte code, and what tests write


def make_payload(image: Path, work: Path, secret: str) -> None:
    """Make the disk image that the guest mounts on /srv.

    Args:
        image: the file to make.
        work: an empty folder for what it is made from; the caller removes it.
        secret: who knows it may run commands in the guest.

    Raises:
        CannotBuildError: packages cannot be had, a program failed or is missing.
    """
    for path in _project_files():
        (work / "project" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / path, work / "project" / path, follow_symlinks=False)
    shutil.copy(_port_module(), work)
    (work / "secret").write_text(f"{secret}\n", encoding="utf-8")
    for mount_point in ("venv", "share"):
        (work / mount_point).mkdir()
    make_ext4(work, image, spare_mib=_SPARE_MIB)


def _project_files() -> list[Path]:
    """The project as it lies there, without what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    if listed.returncode != 0:
        raise CannotBuildError(f"the project is found with git: {listed.stderr.strip()}")
    paths = [Path(name) for name in listed.stdout.split("\0") if name]
    return [path for path in paths if (PROJECT / path).is_file()]  # a file may be deleted and not yet committed


# The environment


def python_environment() -> Path:
    """The disk image that the guest mounts on /srv/venv, made now unless it lies in the cache.

    It is a virtual environment with the locked packages, for the guest's Python, and with the project in it by path.

    Raises:
        CannotBuildError: packages cannot be had, a program failed or is missing.
    """
    lock = PROJECT / "requirements-dev.lock"
    full_version = debian.versions("python3")["python3"]
    version = ".".join(full_version.split(".")[:2])
    parts: list[str | bytes] = [Path(__file__).read_bytes(), lock.read_bytes(), version]
    return cached("venv", parts, lambda folder: _make_environment(folder, lock, version)) / "venv.ext4"


def _make_environment(folder: Path, lock: Path, version: str) -> None:
    venv = folder / "venv"
    venv.mkdir()
    locked = lock_file.select(lock_file.read(lock), lock_file.environment(version))
    wanted = [entry for entry in locked if entry.name not in _LEFT_OUT]
    packages = venv / f"lib/python{version}/site-packages"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-qq", "install"]
    run_program(*pip, "--target", packages, *lock_file.pip_options(wanted, version, folder))
    (packages / "project.pth").write_text("/srv/project\n/srv/project/clients\n", encoding="utf-8")
    (venv / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n", encoding="utf-8"
    )
    scripts = venv / "bin"
    scripts.mkdir()
    (scripts / "python").symlink_to("/usr/bin/python3")
    for name, module in _ENTRY_POINTS.items():
        lines = ("#!/srv/venv/bin/python", "import sys", f"from {module} import main", "sys.exit(main())", "")
        (scripts / name).write_text("\n".join(lines), encoding="utf-8")
        (scripts / name).chmod(0o755)
    make_ext4(venv, folder / "venv.ext4", spare_mib=1)
    shutil.rmtree(venv)


# The module


def _port_module() -> Path:
    release = debian.kernel_release()
    version = debian.versions(f"linux-image-{release}")
    parts: list[str | bytes] = [repr(version), *folder_contents(HERE / "vparport")]
    return cached("vparport", parts, lambda folder: _compile(folder, release)) / "vparport.ko"


def _compile(folder: Path, release: str) -> None:
    headers = Path(f"/usr/src/linux-headers-{release}")
    if not headers.is_dir():
        raise CannotBuildError(
            f"linux-headers-{release} is not installed; tests/vm/packages.sh installs what is needed"
        )
    shutil.copytree(HERE / "vparport", folder, dirs_exist_ok=True)
    run_program("make", f"KERNEL={headers}", cwd=folder)
