"""The daemon's settings: every error at once, each with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lpt_service.config import Config, ConfigError, load, parse

DIGEST = "0" * 64


def problems(values: dict[str, Any]) -> list[str]:
    """What is wrong with them."""
    with pytest.raises(ConfigError) as caught:
        parse(values)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_nothing_is_required() -> None:
    config = parse({})
    assert config.server.listen == ("lpt+unix:///run/lptd/lptd.sock", "lpt://127.0.0.1:5378")
    assert [(port.name, port.device) for port in config.port] == [("LPT1", "simulated")]
    assert config.limits.dead_peer_s == 15
    assert config.token == ()


def test_the_contract_s_defaults() -> None:
    """Connecting interrupts is disabled; the lines are left alone."""
    config = Config()
    settings = config.port_settings(config.port[0])
    assert settings.enable_connect_interrupt is False
    assert settings.safe_data is None
    assert settings.safe_control is None
    assert settings.max_interrupt_rate_hz == 50_000
    assert settings.interrupt_log_frames == 65_536
    assert settings.interrupt_linger_ns == 30_000_000_000


def test_a_full_file(tmp_path: Path) -> None:
    path = tmp_path / "lptd.toml"
    path.write_text(
        """
        [server]
        listen = ["lpt+unix:///run/lptd/lptd.sock", "lpt://[::1]:0"]
        log_level = "debug"
        stop_timeout_s = 3
        state_directory = "/var/lib/lptd"
        [[port]]
        name = "LPT1"
        device = "simulated"
        enable_connect_interrupt = true
        safe_data = 0x00
        safe_control = 0x0c
        max_interrupt_rate_hz = 1000
        interrupt_log_frames = 16
        interrupt_linger_s = 0.5
        [[port]]
        name = "bench.2"
        loopback = false
        pulse_hz = 10
        [limits]
        dead_peer_s = 7.5
        max_sessions = 10
        max_waiters = 11
        max_pending_requests = 12
        [[token]]
        name = "lab"
        sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        """
    )
    config = load(path)
    settings = config.port_settings(config.port[0])
    assert settings.name == "LPT1"
    assert (settings.safe_data, settings.safe_control) == (0, 0x0C)
    assert settings.interrupt_linger_ns == 500_000_000
    assert (settings.max_waiters, settings.max_pending_requests) == (11, 12)
    assert config.port[1].pulse_hz == 10
    assert config.limits.dead_peer_s == 7.5


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse({}).limits.max_sessions = 5


def test_every_error_is_named_with_its_path() -> None:
    found = problems(
        {
            "server": {"listen": ["lpt://127.0.0.1:0", "http://x"], "log_levle": "info"},
            "port": [{"name": "LPT1"}, {"name": "LPT 2", "safe_data": 256, "enable_connect_interrupt": "yes"}],
            "limits": {"dead_peer_s": 0, "max_waiters": 1.5},
            "token": [{"name": "x", "sha256": "abc"}],
            "colour": "green",
        }
    )
    assert [problem.split(":")[0] for problem in found] == [
        "server.listen[1]",
        "server.log_levle",
        "port[1].name",
        "port[1].enable_connect_interrupt",
        "port[1].safe_data",
        "limits.dead_peer_s",
        "limits.max_waiters",
        "token[0].sha256",
        "colour",
    ]
    assert "server.log_levle: unknown key" in found
    assert "port[1].safe_data: input should be less than or equal to 255 (got 256)" in found


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"server": {"listen": []}}, "server.listen: "),
        ({"server": {"listen": "lpt://x"}}, "server.listen: "),
        ({"server": {"listen": ["lpt://127.0.0.1:5378/LPT1"]}}, "leave the port's name out"),
        ({"server": {"listen": ["lpt+unix:///run/s#LPT1"]}}, "leave the port's name out"),
        ({"server": {"listen": ["lpts://127.0.0.1", "lpt://127.0.0.1:5378"]}}, "an address speaks TLS or it does not"),
        ({"tls": {"key": "server.key"}}, "tls.key: must be an absolute path (got 'server.key')"),
        ({"tls": {"client_certificate": "perhaps"}}, "tls.client_certificate: "),
        ({"server": {"listen": ["lpt://127.0.0.1:99999"]}}, "server.listen[0]: "),
        ({"server": {"listen": ["lpt+unix://relative"]}}, "must be absolute"),
        ({"server": {"stop_timeout_s": 0}}, "server.stop_timeout_s: "),
        ({"server": {"log_level": "loud"}}, "server.log_level: "),
        ({"server": {"state_directory": "here"}}, "must be an absolute path (got 'here')"),
        ({"server": 5}, "server: "),
        ({"port": []}, "port: "),
        ({"port": {"name": "LPT1"}}, "port: "),
        ({"port": [{"name": ""}]}, "port[0].name: "),
        ({"port": [{"name": "-x"}]}, "port[0].name: "),
        ({"port": [{"name": "x" * 33}]}, "port[0].name: "),
        ({"port": [{"name": "LPT1\n"}]}, "port[0].name: "),
        ({"port": [{"device": "parport0"}]}, 'port[0].device: a path such as "/dev/parport0", or "simulated"'),
        (
            {"port": [{"name": "A", "device": "/dev/parport0"}, {"name": "B", "device": "/dev/parport0"}]},
            "port: two ports have the device /dev/parport0",
        ),
        ({"port": [{"safe_data": -1}]}, "port[0].safe_data: "),
        ({"port": [{"safe_control": True}]}, "port[0].safe_control: "),
        ({"port": [{"max_interrupt_rate_hz": 0}]}, "port[0].max_interrupt_rate_hz: "),
        ({"port": [{"interrupt_log_frames": 15}]}, "port[0].interrupt_log_frames: "),
        ({"port": [{"interrupt_linger_s": -1}]}, "port[0].interrupt_linger_s: "),
        ({"port": [{"pulse_hz": float("nan")}]}, "port[0].pulse_hz: "),
        ({"port": [{"pulse_hz": float("inf")}]}, "port[0].pulse_hz: "),
        ({"port": [{"name": "A"}, {"name": "B"}, {"name": "A"}]}, "port: two ports have the name A"),
        ({"limits": {"max_sessions": 0}}, "limits.max_sessions: "),
        ({"limits": {"dead_peer_s": "15"}}, "limits.dead_peer_s: "),
        ({"token": [{"name": "a"}]}, "token[0].sha256: "),
        ({"token": [{"name": "a", "sha256": DIGEST.replace("0", "A")}]}, "64 hexadecimal digits in lower case"),
    ],
)
def test_an_error_is_said(values: dict[str, Any], said: str) -> None:
    (problem,) = problems(values)
    assert said in problem
    assert "\n" not in problem.replace("LPT1\\n", "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[server", "not TOML: "),
        (b"a = 1\na = 2", "not TOML: "),
        (b"a = " + b"[" * 100_000, "not TOML: "),
        (b"\xff\xfe", "cannot be read: it is not UTF-8"),
        (b"[server]\nlisten = 5", "server.listen: "),
    ],
)
def test_a_file_with_errors_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "lptd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    assert said in caught.value.problems[0]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.problems == [f"{path}: cannot be read: {reason}"]
