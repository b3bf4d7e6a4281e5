""".ci/run says at its end what took how long, and ends as what it ran."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

# In place of make; `$WRONG` fails.
MAKE = """#!/usr/bin/env bash
set -euo pipefail
. tests/system/timed.sh
part() { [ "$1" != "${WRONG:-}" ] || return 3; }
[ "$1" != check ] || part check
[ "$1" != check-system ] || { timed "  one part" part "one part"; timed "  another part" part "another part"; }
"""


@pytest.mark.parametrize("wrong", ["", "check", "one part", "another part"])
def test_times_are_told_whatever_happened(wrong: str, tmp_path: Path) -> None:
    for name in (".ci/run", "tests/system/timed.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, tmp_path / name)
    make = tmp_path / "bin/make"
    make.parent.mkdir()
    make.write_text(MAKE)
    make.chmod(0o755)
    environment = {**os.environ, "PATH": f"{make.parent}{os.pathsep}{os.environ['PATH']}", "WRONG": wrong}
    done = subprocess.run(
        ["bash", tmp_path / ".ci/run"], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (3 if wrong else 0, "")
    heading, *lines = done.stdout.splitlines()
    assert heading == "== what took how long"
    told = [re.fullmatch(r"(\S.*?|  \S.*?) +\d+ s(  failed \(3\))?", line) for line in lines]
    names = ["make check", "  one part", "  another part", "make check-system, in all"]
    ran = {"check": names[:1], "one part": [*names[:2], names[3]]}.get(wrong, names)
    assert [found and found[1] for found in told] == ran
    failed = [found[1].strip() for found in told if found and found[2]]
    assert failed == {"": [], "check": ["make check"]}.get(wrong, [wrong, "make check-system, in all"])
