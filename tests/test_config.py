"""The daemon's settings: every error at once, each with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lpt_service.config import FILE_MAX_BYTES, Config, ConfigError, load, parse
from lpt_service.protocol.codec import CLIENT_LIMITS

DIGEST = "0" * 64


def problems(values: dict[str, Any]) -> list[str]:
    """What is wrong with them."""
    with pytest.raises(ConfigError) as caught:
        parse(values)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_nothing_is_required() -> None:
    config = parse({})
    assert tuple(each.url for each in config.server.listen) == (
        "lpt+unix:///run/lptd/lptd.sock",
        "lpt://127.0.0.1:5378",
    )
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
        ({"server": {"listen": [{"url": "lpt://127.0.0.1", "allow_from": []}]}}, "server.listen[0].allow_from: "),
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
        (b"# 1\n# \xe9\n", "line 2 is not UTF-8"),
        (b"#" * (FILE_MAX_BYTES + 1), "it exceeds the limit of 1,048,576 bytes"),
        ("[server]".encode("utf-16"), "it is UTF-16: save it as UTF-8"),
        ("[server]".encode("utf-16-le"), "it is UTF-16: save it as UTF-8"),
        ("[server]".encode("utf-16-be"), "it is UTF-16: save it as UTF-8"),
        (b'[server]\nstate_directory = "/a\\u0000b"', "server.state_directory: must be an absolute path"),
        (b'[tls]\nkey = "/a\\u0000b"', "tls.key: must be an absolute path"),
        (b'[audit]\nfile = "/a\\u0000b"', "audit.file: must be an absolute path"),
        (b'[[port]]\ndevice = "/dev/\\u0000"', "port[0].device: a path such as"),
        (b'[server]\nlisten = ["lpt+unix:///a%00b"]', "no path has a zero byte"),
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


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_file_as_any_editor_saves_it(tmp_path: Path, mark: bytes, line_end: bytes) -> None:
    path = tmp_path / "lptd.toml"
    lines = (
        "# µ",
        "[server]",
        'listen = ["lpt://127.0.0.1:1"]',
        "[[token]]",
        'name = "für Anna"',
        f'sha256 = "{"0" * 64}"',
    )
    path.write_bytes(mark + line_end.join(line.encode() for line in lines))
    config = load(path)
    assert (config.server.listen[0].url, config.token[0].name) == ("lpt://127.0.0.1:1", "für Anna")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.problems == [f"{path}: cannot be read: {reason}"]


def test_the_audit_s_file_is_bounded() -> None:
    audit = parse({"audit": {"file": "/var/log/lptd/audit.jsonl", "max_bytes": 100_000, "keep": 0}}).audit
    assert (audit.file, audit.max_bytes, audit.keep) == ("/var/log/lptd/audit.jsonl", 100_000, 0)
    assert parse({}).audit.file is None
    found = problems({"audit": {"file": "audit.jsonl", "max_bytes": 99_999, "keep": 100}})
    assert [problem.split(":")[0] for problem in found] == ["audit.file", "audit.max_bytes", "audit.keep"]


# Listeners, and who may use what is behind them

TOKEN = {"name": "lab", "sha256": DIGEST}
ANYWHERE = "lpt://0.0.0.0:5378"


def role(*who: str, role: str = "use", **keys: Any) -> dict[str, Any]:
    return {"who": list(who), "role": role, **keys}


def test_a_listener_is_a_url_or_a_table() -> None:
    table = {"url": "lpt://10.0.0.1:5378", "allow_from": ["10.0.0.0/8", "fe80::/10", "192.168.7.9"], "insecure": True}
    first, second = parse({"server": {"listen": ["lpt://127.0.0.1:1", table]}}).server.listen
    assert parse({"server": {"listen": [{"url": "lpt://[fe80::1%eth0]:1", "insecure": True}]}}).server.listen
    assert (first.url, first.allow_from, first.insecure) == ("lpt://127.0.0.1:1", None, False)
    assert (second.url, second.insecure) == ("lpt://10.0.0.1:5378", True)
    assert second.allow_from == ("10.0.0.0/8", "fe80::/10", "192.168.7.9")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (5, "server.listen[0]: a URL, or a table with url, allow_from and insecure"),
        ({}, "server.listen[0].url: field required"),
        ({"url": "http://x"}, "server.listen[0].url: 'http://x': unknown scheme"),
        ({"url": "lpt://127.0.0.1/LPT1"}, "server.listen[0].url: a listener serves every port"),
        ({"url": "lpt://127.0.0.1", "allow": []}, "server.listen[0].allow: unknown key"),
        ({"url": "lpt://127.0.0.1", "insecure": 1}, "server.listen[0].insecure: "),
        ({"url": "lpt://127.0.0.1", "allow_from": "10.0.0.0/8"}, "server.listen[0].allow_from: "),
        ({"url": "lpt://127.0.0.1", "allow_from": ["10.0.0.1/8"]}, "10.0.0.1/8 has host bits set"),
        ({"url": "lpt://[fe80::1]:5378"}, "a link-local address needs its interface, as in [fe80::1%eth0]"),
        ({"url": "lpt://127.0.0.1", "allow_from": ["fe80::1%eth0"]}, "a network without a zone (%)"),
        ({"url": "lpt://127.0.0.1", "allow_from": ["::ffff:10.0.0.0/104"]}, "an IPv4 network is written as such"),
        ({"url": "lpt://127.0.0.1", "allow_from": ["lab.example"]}, "server.listen[0].allow_from[0]: a network such"),
        ({"url": "lpt+unix:///run/s", "allow_from": ["10.0.0.0/8"]}, "allow_from is for TCP: who may reach a Unix"),
    ],
)
def test_an_error_in_a_listener_is_said(item: Any, said: str) -> None:
    (problem,) = problems({"server": {"listen": [item]}})
    assert said in problem


@pytest.mark.parametrize(
    ("url", "sections"),
    [
        (ANYWHERE, {}),
        ("lpt://[::]:5378", {}),
        ("lpt://192.168.7.1:5378", {}),
        ("lpt://bench.example:5378", {}),
        ("lpts://0.0.0.0:5378", {}),
        ("lpts://0.0.0.0:5378", {"tls": {"client_certificate": "optional"}}),
        (ANYWHERE, {"tls": {"client_certificate": "required"}}),
        (ANYWHERE, {"role": [role("anyone")]}),
        (ANYWHERE, {"role": [role("cert:*", role="admin"), role("cert:a", "anonymous")]}),
        (ANYWHERE, {"role": [role("anyone", role="admin")], "token": [TOKEN]}),
        (ANYWHERE, {"role": [role("anyone", ports=["LPT1"])]}),
    ],
)
def test_what_anybody_on_the_network_could_use_is_refused_unless_it_is_said_in_words(
    url: str, sections: dict[str, Any]
) -> None:
    said = f"server.listen[1]: whoever reaches {url} from another machine could use the ports: make [[token]], [[role]]"
    for item in (url, {"url": url}, {"url": url, "insecure": False}, {"url": url, "allow_from": ["10.0.0.0/8"]}):
        (problem,) = problems({"server": {"listen": ["lpt+unix:///run/s", item]}, **sections})
        assert problem.startswith(said)
        assert "or say insecure = true there" in problem
    listen = ["lpt+unix:///run/s", {"url": url, "insecure": True}]
    assert parse({"server": {"listen": listen}, **sections}).server.listen[1].insecure


@pytest.mark.parametrize(
    ("url", "sections"),
    [
        ("lpt://127.8.9.1:5378", {}),
        ("lpt://[::1]:5378", {}),
        ("lpt://localhost:5378", {}),
        ("lpt+unix:///run/s", {}),
        ("lpt://127.0.0.1:5378", {"role": [role("anyone", role="admin")]}),
        (ANYWHERE, {"token": [TOKEN]}),
        (ANYWHERE, {"role": [role("anyone", role="observe"), role("token:*")], "token": [TOKEN]}),
        (ANYWHERE, {"role": [role("user:anna", "group:lab", "cert:*")]}),
        ("lpts://0.0.0.0:5378", {"tls": {"client_certificate": "required"}}),
        ("lpts://0.0.0.0:5378", {"tls": {"client_certificate": "required"}, "role": [role("anyone")]}),
    ],
)
def test_what_is_not_exposed_needs_no_such_word(url: str, sections: dict[str, Any]) -> None:
    assert parse({"server": {"listen": [url]}, **sections}).server.listen[0].insecure is False


# Roles and tokens


def test_roles() -> None:
    table = [role("user:anna", "group:*", "cert:rig 2", "token:lab", "token:*", "anonymous", "anyone", ports=["B"])]
    (found,) = parse({"port": [{"name": "A"}, {"name": "B"}], "token": [TOKEN], "role": table}).role
    assert (found.role, found.ports, len(found.who)) == ("use", ("B",), 7)
    assert parse({"role": [role("cert:x", role="admin")]}).role[0].ports is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"role": [{"role": "use"}]}, "role[0].who: field required"),
        ({"role": [{"who": ["anyone"]}]}, "role[0].role: field required"),
        ({"role": [role()]}, "role[0].who: "),
        ({"role": [{"who": "anyone", "role": "use"}]}, "role[0].who: "),
        ({"role": [role("anyone", role="owner")]}, "role[0].role: input should be 'observe', 'use' or 'admin'"),
        ({"role": [role("anyone", ports=[])]}, "role[0].ports: "),
        ({"role": [role("anyone", port="LPT1")]}, "role[0].port: unknown key"),
        ({"role": [role("anna")]}, 'role[0].who[0]: "anyone", "anonymous", or user:, group:, cert: or token: with a '),
        ({"role": [role("anyone", "user:")]}, "role[0].who[1]: "),
        ({"role": [role("anonymous:x")]}, "role[0].who[0]: "),
        ({"role": [role("*")]}, "role[0].who[0]: "),
        ({"role": [role("uid:5")]}, "role[0].who[0]: "),
        ({"role": [role("anyone", ports=["LPT1", "LPT2"])]}, "role[0].ports: there is no port LPT2"),
        ({"role": [role("token:lab")]}, "role[0].who: there is no token 'lab'"),
        ({"role": [role("token:x")], "token": [TOKEN]}, "role[0].who: there is no token 'x'"),
        ({"token": [{"name": "", "sha256": DIGEST}]}, "token[0].name: "),
        ({"token": [{"name": "x" * 65, "sha256": DIGEST}]}, "token[0].name: "),
        ({"token": [{"name": "*", "sha256": DIGEST}]}, "token[0].name: printable characters, not * alone"),
        ({"token": [{"name": "a\nb", "sha256": DIGEST}]}, "token[0].name: printable characters"),
        ({"token": [{**TOKEN, "secret": "x"}]}, "token[0].secret: unknown key"),
        ({"limits": {"max_connections": 0}}, "limits.max_connections: "),
        ({"limits": {"max_connections_per_address": 1_000_001}}, "limits.max_connections_per_address: "),
        ({"limits": {"max_connections_before_hello": 0}}, "limits.max_connections_before_hello: "),
        ({"limits": {"max_sessions_per_identity": "many"}}, "limits.max_sessions_per_identity: "),
        ({"limits": {"max_registrations": 4097}}, "limits.max_registrations: "),
        ({"limits": {"max_pending_requests": 4097}}, "limits.max_pending_requests: "),
        ({"limits": {"max_backlog_bytes": 4095}}, "limits.max_backlog_bytes: "),
        ({"limits": {"max_backlog_bytes": 1 << 31}}, "limits.max_backlog_bytes: "),
        ({"port": [{"max_hold_s": -1}]}, "port[0].max_hold_s: "),
        ({"port": [{"idle_hold_s": 86_401}]}, "port[0].idle_hold_s: "),
        ({"port": [{"hold_warning_s": float("nan")}]}, "port[0].hold_warning_s: "),
        ({"port": [{"grace_s": -0.1}]}, "port[0].grace_s: "),
    ],
)
def test_an_error_about_who_may_what_is_said(values: dict[str, Any], said: str) -> None:
    (problem,) = problems(values)
    assert problem.startswith(said)


def test_the_limits_by_default_and_where_they_go() -> None:
    limits = Config().limits
    assert (limits.max_connections, limits.max_connections_per_address) == (8192, 2048)
    assert limits.max_connections_before_hello == 512
    assert (limits.max_sessions, limits.max_sessions_per_identity) == (4096, 2048)
    assert (limits.max_waiters, limits.max_pending_requests, limits.max_registrations) == (4096, 256, 64)
    assert limits.max_backlog_bytes == 262_144
    config = parse({"limits": {"max_registrations": 5, "max_pending_requests": 6, "max_waiters": 7}})
    settings = config.port_settings(config.port[0])
    assert (settings.max_registrations, settings.max_pending_requests, settings.max_waiters) == (5, 6, 7)


def test_what_a_resumed_session_is_told_of_is_no_more_than_clients_take() -> None:
    most = CLIENT_LIMITS.max_items
    parse({"limits": {"max_registrations": most, "max_pending_requests": most}})
    for key in ("max_registrations", "max_pending_requests"):
        assert problems({"limits": {key: most + 1}})
