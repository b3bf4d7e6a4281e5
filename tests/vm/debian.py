"""What the machine's own apt says: releases, versions, where packages come from; and packages fetched with it."""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path

from tests.vm.host import CannotBuildError, run_program

_UPDATE = "as root: apt-get update"
_RETRIES = 'Acquire::Retries "5";'  # a mirror may be away for a moment


def suite() -> str:
    """The code name of the machine's Debian release, which the guest gets too."""
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian" or platform.machine() != "x86_64":
        raise CannotBuildError(f"needs Debian on x86_64; this is {release.get('ID')} on {platform.machine()}")
    return release["VERSION_CODENAME"]


def sources() -> str:
    """Lines for a sources.list: Debian's own suites, from the mirrors that this machine uses."""
    line = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)|$(ORIGIN)"
    targets = run_program("apt-get", "indextargets", "--format", line, "Identifier: Packages").splitlines()
    lines = sorted({target.removesuffix("|Debian") for target in targets if target.endswith("|Debian")})
    if not any(f" {suite()} main" in line for line in lines):
        raise CannotBuildError(f"apt on this machine has no package lists of Debian {suite()}; {_UPDATE}")
    return "".join(f"{line}\n" for line in lines)


def transport_options() -> list[str]:
    """Options of the machine's apt for its mirrors (proxies, certificates), and patience; each a line of apt.conf."""
    dump = run_program("apt-config", "dump").splitlines()
    own = [line for line in dump if re.match(r"Acquire::(https?::|Check-Valid-Until)", line) and '""' not in line]
    return [*own, _RETRIES]


@functools.cache  # apt takes half a second for an answer
def versions(*packages: str) -> dict[str, str]:
    """The version of each package that apt would install."""
    shown = run_program("apt-cache", "policy", *packages)
    found = dict(re.findall(r"^(\S+):\n.*\n  Candidate: (\S+)", shown, re.MULTILINE))
    missing = sorted(name for name in packages if found.get(name, "(none)") == "(none)")
    if missing:
        raise CannotBuildError(f"apt knows no {', '.join(missing)}; {_UPDATE}")
    return found


@functools.cache
def kernel_release() -> str:
    """The release of Debian's stock kernel, as in 6.1.0-13-amd64."""
    suite()
    try:
        shown = run_program("apt-cache", "depends", "linux-image-amd64")
    except CannotBuildError:
        shown = ""
    found = re.search(r"Depends: linux-image-(\d\S+)", shown)
    if found is None:
        raise CannotBuildError(f"apt knows no linux-image-amd64; {_UPDATE}")
    return found[1]


def unpack(package: str, folder: Path) -> None:
    """Download a package and unpack it, without installing it."""
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    options = ("-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=5")
    run_program("apt-get", "-qq", *options, "download", package, cwd=packages)
    (file,) = packages.glob(f"{package}_*.deb")
    run_program("dpkg-deb", "-x", file, folder)
    file.unlink()
