"""Addresses of one link, which name their interface: lpt://[fe80::1%eth0]:5378. Needs `ip` and a network namespace."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lptctl import authority
from tests.e2e.daemons import PROJECT

pytestmark = pytest.mark.system

SET_UP = 'ip link set lo up && ip -6 addr add fe80::7/64 dev lo nodad && exec "$@"'


def test_a_daemon_at_an_address_of_one_link(tmp_path: Path) -> None:
    own_network = ["unshare", "--map-root-user", "--net", "sh", "-c", SET_UP, "sh"]
    if (
        shutil.which("ip") is None
        or subprocess.run([*own_network, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no network namespaces, or no IPv6, here")
    authority.init(tmp_path)
    made = authority.issue_server(tmp_path, ("fe80::7%eth0",))
    for suffix in (".pem", ".key"):
        made.with_suffix(suffix).rename(tmp_path / f"fe80::7{suffix}")
    command = [*own_network, sys.executable, "-m", "tests.system.on_a_link", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [re.sub(r"\d+/", "N/", line) for line in told["announced"]] == [
        "listening on lpt://[fe80::7%lo]:N/LPT1",
        "listening on lpts://[fe80::7%lo]:N/LPT1",
    ]
    for way in ("plain", "RFC 6874", "number"):
        assert re.fullmatch(r"\[fe80::7%lo]:\d+", told[way])
    assert told["blocking, TLS"]
    assert told["trio, TLS"]
    for answers in (told["wrong"], told["wrong, trio"]):
        assert "Invalid argument (a link-local address needs its interface, as in [fe80::7%eth0])" in answers[0]
        assert "(there is no interface nowhere here)" in answers[1]
    assert "there is no interface nowhere (`ip link` lists them)" in told["no such interface"]
    assert told["not of this link"].endswith("lpt://[fe80::9%lo]:0: Cannot assign requested address\n")
    assert told["both families"] == ""
