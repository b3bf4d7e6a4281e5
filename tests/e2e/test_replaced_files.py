"""While a package is upgraded, the old daemon goes on with files that are not its own any more: it must not need them.

What a daemon loads after it is ready would come from the new version's files. So it has to have loaded everything.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client import ALLOCATE, FREE, PULSE, RawClient, pulse
from tests.e2e.daemons import DaemonProcess, eventually

CONFIG = """
[server]
listen = ["lpt://127.0.0.1:0", "lpt+unix://{folder}/s"]
[[port]]
enable_connect_interrupt = true
safe_data = {safe_data}
[[port]]
name = "CARD"
device = "/dev/not-there"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def loaded_later(daemon: DaemonProcess, log_before: str) -> set[str]:
    """Modules that are not Python's own, loaded since then."""
    lines = daemon.log().removeprefix(log_before)
    names = {each.strip() for each in re.findall(r"^import time:.*\|.*\|(.*)$", lines, re.MULTILINE)}
    return {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}


def use_everything(daemon: DaemonProcess) -> None:
    owner = daemon.connect(port="LPT1", client="owner")
    owner.connect_interrupt()
    owner.allocate()
    owner.ioctl(PULSE, pulse(0x08, 0, 1000), 16)
    waiter = daemon.connect(port="LPT1", client="waiter")
    waiter.control(ALLOCATE)
    waiter.close()
    admin = RawClient(daemon.addresses[-1]).hello(port="CARD")
    assert not admin.call("drain", {"on": True})["idle"]
    admin.close()
    broken = RawClient(daemon.address)
    broken.socket.sendall(b"\xc1")
    assert broken.rest()[-1][1] == "closing"
    broken.close()
    assert daemon.status(port="CARD")["state"] == "absent"
    owner.ioctl(FREE)
    owner.close()


def test_nothing_is_loaded_once_the_daemon_is_ready(folder: Path) -> None:
    config = folder / "config.toml"
    config.write_text(CONFIG.format(folder=folder, safe_data=0))
    daemon = DaemonProcess("--config", str(config), environment={"PYTHONPROFILEIMPORTTIME": "1"})
    try:
        daemon.wait_until_ready(4)
        before = daemon.log()
        assert "lpt_service.server.daemon" in loaded_later(daemon, ""), "imports are not told"
        use_everything(daemon)
        for text, said in (("typo = 1", "reload refused"), (CONFIG.format(folder=folder, safe_data=1), "reloaded")):
            config.write_text(text)
            daemon.signal(signal.SIGHUP)
            eventually(lambda said=said: said in daemon.log())  # type: ignore[misc]
        assert loaded_later(daemon, before) == set()
        assert daemon.stop() == 0
        assert loaded_later(daemon, before) == set()
    finally:
        daemon.kill()
