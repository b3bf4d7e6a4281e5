"""The client of docs/protocol.md in another language runs, with its one package from the registry."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lpt_service.protocol.url import Url
from tests.docs.markdown import PROJECT

CLIENT = PROJECT / "clients/examples/minimal_client.mjs"
LOCK = Path(__file__).parent / "npm"


@pytest.mark.system
@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
def test_minimal_client(daemon_url: Url, tmp_path: Path) -> None:
    for path in LOCK.iterdir():
        shutil.copy(path, tmp_path)
    install = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True, timeout=50)
    script = tmp_path / CLIENT.name  # where its package is found
    shutil.copy(CLIENT, script)
    command = ["node", str(script), daemon_url.host, str(daemon_url.tcp_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    assert "protocol: 1" in done.stdout
    (status,) = (json.loads(line) for line in re.findall(r"^status (\{.*\})$", done.stdout, re.MULTILINE))
    assert status["owner"]["client"] == "minimal_client.mjs"
    assert all(isinstance(status[key], int) for key in ("monotonic_ns", "uptime_ns"))
    assert isinstance(status["interrupts"]["stream"], int)
    assert "interrupt_sync [ 'connected', " in done.stdout
    assert len(re.findall(r"^interrupt \[ \d+n, \d+n, 1, 192, 28, 0 ]$", done.stdout, re.MULTILINE)) == 1
    alone = subprocess.run(["node", str(script), "127.0.0.1", "1"], capture_output=True, text=True, timeout=40)
    said = "connect ECONNREFUSED 127.0.0.1:1; usage: node minimal_client.mjs [HOST [PORT]]\n"
    assert (alone.returncode, alone.stderr) == (1, said)


def test_it_is_about_twenty_lines() -> None:
    lines = [line for line in CLIENT.read_text(encoding="utf-8").splitlines() if line and not line.startswith("//")]
    assert 20 <= len(lines) <= 30
