"""The numbers, against the kernel's headers as a C compiler sees them, and as they are known for other machines."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lpt_service.port.ppdev_ioctl import IOCTLS, PpdevIoctls


def test_the_numbers_of_common_machines() -> None:
    """As strace and other programs have them."""
    for machine in ("x86_64", "i686", "aarch64", "armv7l", "riscv64", "s390x"):
        numbers = PpdevIoctls(machine)
        assert (numbers.PPCLAIM, numbers.PPRELEASE, numbers.PPEXCL) == (0x708B, 0x708C, 0x708F)
        assert (numbers.PPRSTATUS, numbers.PPRCONTROL, numbers.PPRDATA) == (0x80017081, 0x80017083, 0x80017085)
        assert (numbers.PPWCONTROL, numbers.PPWDATA, numbers.PPFCONTROL) == (0x40017084, 0x40017086, 0x4002708E)
        assert (numbers.PPDATADIR, numbers.PPCLRIRQ, numbers.PPGETMODES) == (0x40047090, 0x80047093, 0x80047097)


def test_machines_that_number_in_their_own_way() -> None:
    assert PpdevIoctls("ppc64le").PPCLAIM == 0x2000708B
    assert PpdevIoctls("ppc64le").PPRSTATUS == 0x40017081
    assert PpdevIoctls("mips").PPWDATA == 0x80017086
    assert PpdevIoctls("parisc").PPRSTATUS == 0x40017081


def test_the_numbers_of_this_machine_are_those_of_its_headers(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/usr/include/linux/ppdev.h").exists():
        pytest.skip("no C compiler, or no kernel headers")
    names = sorted(vars(IOCTLS))
    source = tmp_path / "numbers.c"
    lines = "".join(f'printf("%s %u\\n", "{name}", (unsigned){name});' for name in names)
    source.write_text(
        "#include <stdio.h>\n#include <sys/ioctl.h>\n#include <sys/time.h>\n#include <linux/ppdev.h>\n"
        f"int main(void) {{ {lines} return 0; }}\n"
    )
    program = tmp_path / "numbers"
    subprocess.run([compiler, "-o", program, source], check=True)
    told = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert dict(line.split() for line in told.splitlines()) == {name: str(vars(IOCTLS)[name]) for name in names}
