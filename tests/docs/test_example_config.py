"""deploy/config.toml is good, and tells of every key its default, its range, and whether it takes a restart."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
from pydantic import BaseModel

from lpt_service import config
from lpt_service.server import daemon
from tests.docs.markdown import PROJECT, read

EXAMPLE = PROJECT / "deploy/config.toml"
TEXT = read(EXAMPLE)
SECTIONS: dict[str, type[BaseModel]] = {
    "server": config.ServerConfig,
    "port": config.PortConfig,
    "limits": config.LimitsConfig,
    "tls": config.TlsConfig,
    "audit": config.AuditConfig,
    "token": config.TokenConfig,
    "role": config.RoleConfig,
}


class Key(NamedTuple):
    """A key of the example: its table, whether it is commented out, and the last line of the comment above it."""

    section: str
    name: str
    is_unset: bool
    facts: str


def keys() -> list[Key]:
    found, section, comment = [], "", ""
    for line in TEXT.splitlines():
        table = re.fullmatch(r"#?\[+(\w+)]+", line)
        assignment = re.fullmatch(r"(#?)(\w+) = .+", line)
        if table:
            section = table[1]
        elif assignment:
            found.append(Key(section, assignment[2], bool(assignment[1]), comment))
        else:
            comment = line.removeprefix("# ")
    return found


KEYS = {(key.section, key.name): key for key in keys()}
FIELDS = {(section, name): field for section, model in SECTIONS.items() for name, field in model.model_fields.items()}


def test_it_is_good_and_the_defaults() -> None:
    assert config.load(EXAMPLE) == config.Config()


def test_it_is_good_with_every_key_set(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(re.sub(r"^#(?=\[|\w+ = )", "", TEXT, flags=re.MULTILINE), encoding="utf-8")
    full = config.load(path)
    assert (full.port[0].safe_data, full.port[0].safe_control) == (0x00, 0x0C)
    assert full.server.state_directory is not None
    assert len(full.token) == 1


def test_it_has_every_key_once() -> None:
    assert set(KEYS) == set(FIELDS)
    assert len(keys()) == len(FIELDS)
    assert set(SECTIONS) == set(config.Config.model_fields)


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_key_tells_its_default_and_range(path: tuple[str, str]) -> None:
    key, field = KEYS[path], FIELDS[path]
    if field.is_required():
        assert "required" in key.facts
        return
    default = field.default
    assert key.is_unset == (default is None)
    if default is None:
        assert "default unset" in key.facts
    elif isinstance(default, tuple):
        assert "default as shown" in key.facts
    else:
        shown = f"{default:g}" if isinstance(default, float) else json.dumps(default)
        assert re.search(rf"default {re.escape(shown)}[;.]", key.facts), key.facts
    for bound in bounds(field):
        assert re.search(rf"\b{bound:g}\b" if bound < 1e5 else rf"\b{bound}\b", key.facts), (bound, key.facts)


def bounds(field: Any) -> list[float]:
    """The limits of a number, or of the length of an array."""
    names = ("ge", "gt", "le", "min_length", "max_length")
    found = (getattr(item, name, None) for item in field.metadata for name in names)
    return [bound for bound in found if bound]  # that a number is not negative need not be said


async def reload(changed: config.Config) -> None:
    """Have a daemon read a configuration that differs from the defaults, but for where it listens."""
    before = config.parse({"server": {"listen": ["lpt://127.0.0.2:0"]}})
    running = daemon.Daemon(before, reread=lambda: changed)
    async with trio.open_nursery() as nursery:
        await nursery.start(running.run)
        await running.reload()
        running.stop()


@pytest.mark.parametrize("path", [path for path in FIELDS if path[0] in ("server", "port")], ids=".".join)
def test_a_key_tells_whether_it_takes_a_restart(
    path: tuple[str, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, name = path
    other: dict[str, Any] = {
        "listen": ["lpt://127.0.0.1:0"], "log_level": "debug", "stop_timeout_s": 1.0, "state_directory": "/tmp",
        "name": "LPT2", "device": "/dev/parport9", "enable_connect_interrupt": True, "safe_data": 1, "safe_control": 1,
        "max_interrupt_rate_hz": 1, "interrupt_log_frames": 16, "interrupt_linger_s": 1.0,
        "max_hold_s": 1.0, "idle_hold_s": 1.0, "hold_warning_s": 1.0, "grace_s": 1.0,
        "loopback": False, "pulse_hz": 1.0,
    }  # fmt: skip
    values: dict[str, Any] = {section: {name: other[name]}} if section == "server" else {section: [{name: other[name]}]}
    caplog.set_level(logging.WARNING, "lpt_service")
    monkeypatch.setattr(logging.getLogger("lpt_service"), "propagate", True)  # another test may have set up the log
    values["server"] = {"listen": ["lpt://127.0.0.1:0"], **values.get("server", {})}
    trio.run(reload, config.parse(values))
    assert ("restart" in caplog.text) == ("; restart" in KEYS[path].facts), caplog.text
