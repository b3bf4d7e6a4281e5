"""The guest's operating system: Debian's kernel and packages as a disk image, built once and cached by content."""

from __future__ import annotations

import lzma
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.vm import debian
from tests.vm.host import HERE, CannotBuildError, cached, folder_contents, make_ext4, run_program

PACKAGES: Final = [
    "iproute2",
    "kmod",
    "libieee1284-3",
    "libnss-systemd",
    "procps",
    "python3",
    "python3-parallel",
    "systemd",
    "systemd-sysv",
    "udev",
    "uisp",
]
_UNITS: Final = ["vm-network.service", "vm-ports.service", "vm-ready.service", "vm-run.socket"]

# What takes time in every boot and no test needs. The last two lines would fail: their modules are not in the image.
_MASKED_UNITS: Final = [
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "getty-static.service", "getty@tty1.service", "systemd-update-utmp.service"),
    *("systemd-update-utmp-runlevel.service", "systemd-random-seed.service", "systemd-pstore.service"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "systemd-repart.service"),
    *("proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service"),
]

_INITRD_MODULES: Final = ["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"]
_MODULES: Final = [
    *("virtio_net", "virtio_rng", "9p", "9pnet_virtio", "autofs4", "af_packet", "dummy"),
    *("parport_pc", "ppdev", "lp"),
]

_SPARE_MIB: Final = 256
_BUILD_TIMEOUT_S: Final = 600

# Of the boot protocol of x86: where a bzImage says what it is and where its compressed kernel lies.
_SECTORS_AT, _MAGIC_AT, _PAYLOAD_AT = 0x1F1, 0x202, 0x248
_SECTOR_BYTES: Final = 512
_XZ_MAGIC: Final = b"\xfd7zXZ\0"


@dataclass(frozen=True)
class Image:
    """What a guest boots. Nobody changes these files: QEMU writes to a copy that it forgets."""

    kernel: Path
    initrd: Path
    root: Path


def operating_system() -> Image:
    """The guest's operating system, built now unless it lies in the cache.

    Raises:
        CannotBuildError: packages cannot be had, a program failed or is missing.
    """
    release = debian.kernel_release()
    versions = debian.versions(*PACKAGES, f"linux-image-{release}", "busybox-static")
    folder = cached(
        "system",
        [
            Path(__file__).read_bytes(),
            (HERE / "initrd.sh").read_bytes(),
            repr(versions),
            *folder_contents(HERE / "root"),
        ],
        lambda folder: _build(folder, release),
    )
    return Image(kernel=folder / "vmlinux", initrd=folder / "initrd", root=folder / "root.ext4")


def _build(folder: Path, release: str) -> None:
    if os.geteuid() != 0:
        raise CannotBuildError("the guest's file system can only be made by root; a built one boots as any user")
    kernel = folder / "kernel"
    debian.unpack(f"linux-image-{release}", kernel)
    debian.unpack("busybox-static", folder / "busybox")
    (folder / "vmlinux").write_bytes(_decompressed((kernel / f"boot/vmlinuz-{release}").read_bytes()))
    run_program("depmod", "-b", kernel, release)
    _make_initrd(folder, kernel, release)
    root = folder / "root"
    _install_packages(root, folder / "sources.list")
    _copy_modules(kernel, release, [*_INITRD_MODULES, *_MODULES], root)
    shutil.copytree(HERE / "root", root, dirs_exist_ok=True, symlinks=True)
    (root / "srv/share").mkdir()
    run_program("chroot", root, "systemctl", "enable", "--quiet", *_UNITS)
    run_program("chroot", root, "systemctl", "mask", "--quiet", *_MASKED_UNITS)
    make_ext4(root, folder / "root.ext4", spare_mib=_SPARE_MIB)
    for leftover in (kernel, root, folder / "busybox", folder / "initrd.d"):
        shutil.rmtree(leftover)


def _install_packages(root: Path, sources: Path) -> None:
    sources.write_text(debian.sources(), encoding="utf-8")
    options = [f"--aptopt={option}" for option in debian.transport_options()]
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}", *options]
    run_program(*command, debian.suite(), root, sources, timeout_s=_BUILD_TIMEOUT_S)


def _decompressed(bz_image: bytes) -> bytes:
    """The kernel inside: QEMU starts it at once (PVH), where the guest would decompress it for seconds."""
    if bz_image[_MAGIC_AT : _MAGIC_AT + 4] != b"HdrS":
        raise CannotBuildError("Debian's kernel is not a bzImage")
    offset, size = struct.unpack_from("<II", bz_image, _PAYLOAD_AT)
    start = (bz_image[_SECTORS_AT] + 1) * _SECTOR_BYTES + offset
    payload = bz_image[start : start + size]
    if not payload.startswith(_XZ_MAGIC):
        raise CannotBuildError("Debian's kernel is not compressed with xz any more: tests/vm/image.py must learn that")
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)


def _copy_modules(kernel: Path, release: str, names: list[str], target: Path) -> None:
    """Copy modules and what they depend on."""
    shown = run_program("modprobe", "-d", kernel, "-S", release, "--show-depends", "--all", *names)
    for line in dict.fromkeys(line for line in shown.splitlines() if line.startswith("insmod ")):
        relative = Path(line.split()[1]).relative_to(kernel)
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kernel / relative, target / relative)
    for index in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(kernel / "lib/modules" / release / index, target / "lib/modules" / release)
    run_program("depmod", "-b", target, release)


def _make_initrd(folder: Path, kernel: Path, release: str) -> None:
    tree = folder / "initrd.d"
    for name in ("bin", "sbin", "dev", "proc", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(folder / "busybox/bin/busybox", tree / "bin/busybox")
    shutil.copy(HERE / "initrd.sh", tree / "init")
    (tree / "init").chmod(0o755)
    _copy_modules(kernel, release, _INITRD_MODULES, tree)
    archive = "find . | cpio --quiet --create --format=newc"
    run_program("sh", "-c", f"{archive} > ../initrd", cwd=tree)
