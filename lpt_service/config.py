"""The daemon's settings: frozen, from TOML, checked as a whole before anything is done with them.

An unknown key is an error that names its path; all errors are reported at once. `deploy/config.toml` explains every
key.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lpt_service import config_problems
from lpt_service.core.settings import PortSettings
from lpt_service.protocol.errors import LptError
from lpt_service.protocol.text import is_utf16
from lpt_service.protocol.url import TCP, TLS, UNIX, Url, lacks_zone

SIMULATED = "simulated"
FILE_MAX_BYTES = 1 << 20  # a hundred times what the largest configuration takes

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # IPv4 addresses, as an IPv6 socket shows them
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
Register = Annotated[int, Field(ge=0, le=0xFF)]
Limit = Annotated[int, Field(ge=1, le=1_000_000)]


class ConfigError(LptError):
    """The settings cannot be used. `problems` has one line for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _check_listen(text: str) -> str:
    url = Url.parse(text)
    if lacks_zone(url.host):
        raise ValueError(f"a link-local address needs its interface, as in [{url.host}%eth0]")
    if url.port_name is not None:
        raise ValueError("a listener serves every port: leave the port's name out")
    return text


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a port's name is 1 to 32 of A-Z a-z 0-9 _ . - and begins with a letter or digit")
    return name


def _check_device(device: str) -> str:
    if "\0" in device or (device != SIMULATED and not Path(device).is_absolute()):
        raise ValueError('a path such as "/dev/parport0", or "simulated"')
    return device


def _check_absolute(path: str) -> str:
    if "\0" in path or not Path(path).is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _check_sha256(digest: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("64 hexadecimal digits in lower case, as `sha256sum` prints them")
    return digest


def _check_network(text: str) -> str:
    if "%" in text:
        raise ValueError("a network without a zone (%): whoever has the address may come, over whichever interface")
    try:
        network = ipaddress.ip_network(text)
    except ValueError as exc:
        raise ValueError(f'a network such as "192.168.7.0/24" or an address: {exc}') from exc
    if network.network_address in _MAPPED and network.prefixlen >= _MAPPED.prefixlen:
        raise ValueError("an IPv4 network is written as such, without ::ffff:")
    return text


def _check_token_name(name: str) -> str:
    if not name.isprintable() or name == "*":
        raise ValueError("printable characters, not * alone: token:* stands for every token")
    return name


def _check_who(who: str) -> str:
    kind, colon, name = who.partition(":")
    if who not in ("anyone", "anonymous") and not (colon and name and kind in ("user", "group", "cert", "token")):
        raise ValueError('"anyone", "anonymous", or user:, group:, cert: or token: with a name, or with * for all')
    return who


def _listener_table(value: Any) -> Any:
    if not isinstance(value, (str, dict)):
        raise ValueError("a URL, or a table with url, allow_from and insecure")
    return {"url": _check_listen(value)} if isinstance(value, str) else value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ListenerConfig(_Section):
    """One item of `server.listen`: a URL, or a table with one."""

    url: Annotated[str, AfterValidator(_check_listen)]
    allow_from: tuple[Annotated[str, AfterValidator(_check_network)], ...] | None = Field(default=None, min_length=1)
    insecure: bool = False

    @model_validator(mode="after")
    def _check_unix(self) -> ListenerConfig:
        if self.allow_from is not None and Url.parse(self.url).scheme == UNIX:
            raise ValueError("allow_from is for TCP: who may reach a Unix socket, the file's permissions say")
        return self


class ServerConfig(_Section):
    """`[server]`: where to listen, and the daemon as a whole."""

    listen: tuple[Annotated[ListenerConfig, BeforeValidator(_listener_table)], ...] = Field(
        default=(
            ListenerConfig(url="lpt+unix:///run/lptd/lptd.sock"),
            ListenerConfig(url="lpt://127.0.0.1:5378"),
        ),
        min_length=1,
        max_length=64,
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    stop_timeout_s: float = Field(default=5.0, gt=0, le=300)
    state_directory: Annotated[str, AfterValidator(_check_absolute)] | None = None


class PortConfig(_Section):
    """`[[port]]`: one port."""

    name: Annotated[str, AfterValidator(_check_name)] = "LPT1"
    device: Annotated[str, AfterValidator(_check_device)] = SIMULATED
    enable_connect_interrupt: bool = False
    safe_data: Register | None = None
    safe_control: Register | None = None
    max_interrupt_rate_hz: int = Field(default=50_000, ge=1, le=10_000_000)
    interrupt_log_frames: int = Field(default=65_536, ge=16, le=16_777_216)
    interrupt_linger_s: float = Field(default=30.0, ge=0, le=86_400)
    max_hold_s: float = Field(default=0.0, ge=0, le=86_400)
    idle_hold_s: float = Field(default=0.0, ge=0, le=86_400)
    hold_warning_s: float = Field(default=5.0, ge=0, le=86_400)
    grace_s: float = Field(default=0.0, ge=0, le=86_400)
    # For simulated ports.
    loopback: bool = True
    pulse_hz: float = Field(default=0.0, ge=0, le=100_000)


class LimitsConfig(_Section):
    """`[limits]`: how much anybody may have, and how long a silence may last."""

    dead_peer_s: float = Field(default=15.0, ge=1, le=3600)
    unread_reply_s: float = Field(default=300.0, ge=1, le=86_400)
    max_connections: Limit = 8192
    max_connections_per_address: Limit = 2048
    max_connections_before_hello: Limit = 512
    max_sessions: Limit = 4096
    max_sessions_per_identity: Limit = 2048
    max_waiters: Limit = 4096
    # A resumed session is told of all of these in two arrays, of which clients take so many items.
    max_pending_requests: int = Field(default=256, ge=1, le=4096)
    max_registrations: int = Field(default=64, ge=1, le=4096)
    max_backlog_bytes: int = Field(default=256 * 1024, ge=4096, le=1 << 30)


class TokenConfig(_Section):
    """`[[token]]`: somebody who is known by a secret. Where there are no roles, nobody may do anything without one."""

    name: Annotated[str, AfterValidator(_check_token_name)] = Field(min_length=1, max_length=64)
    sha256: Annotated[str, AfterValidator(_check_sha256)]


class RoleConfig(_Section):
    """`[[role]]`: who may do what, with which ports (all, if none is named)."""

    who: tuple[Annotated[str, AfterValidator(_check_who)], ...] = Field(min_length=1)
    role: Literal["observe", "use", "admin"]
    ports: tuple[str, ...] | None = Field(default=None, min_length=1)


class TlsConfig(_Section):
    """`[tls]`: the daemon's certificate, and its clients'. The files are read only if a listener is lpts://."""

    certificate: Annotated[str, AfterValidator(_check_absolute)] = "/etc/lptd/tls/server.pem"
    key: Annotated[str, AfterValidator(_check_absolute)] = "/etc/lptd/tls/server.key"
    client_ca: Annotated[str, AfterValidator(_check_absolute)] = "/etc/lptd/tls/ca.pem"
    client_certificate: Literal["none", "optional", "required"] = "none"


class AuditConfig(_Section):
    """`[audit]`: the trail of who owned a port, who was refused, who administered what."""

    file: Annotated[str, AfterValidator(_check_absolute)] | None = None
    max_bytes: int = Field(default=10_000_000, ge=100_000, le=1_000_000_000)
    keep: int = Field(default=9, ge=0, le=99)


class Config(_Section):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    port: tuple[PortConfig, ...] = Field(default=(PortConfig(),), min_length=1, max_length=64)
    limits: LimitsConfig = LimitsConfig()
    tls: TlsConfig = TlsConfig()
    audit: AuditConfig = AuditConfig()
    token: tuple[TokenConfig, ...] = ()
    role: tuple[RoleConfig, ...] = ()

    @model_validator(mode="after")
    def _check_names_differ(self) -> Config:
        names = [port.name for port in self.port]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"port: two ports have the name {name}")
        devices = [port.device for port in self.port if port.device != SIMULATED]
        for device in sorted({device for device in devices if devices.count(device) > 1}):
            raise ValueError(f"port: two ports have the device {device}")
        return self

    @model_validator(mode="after")
    def _check_listeners_differ(self) -> Config:
        urls = [Url.parse(each.url) for each in self.server.listen]
        plain = {(url.host, url.tcp_port) for url in urls if url.scheme == TCP and url.tcp_port}
        for url in urls:
            if url.scheme == TLS and (url.host, url.tcp_port) in plain:
                raise ValueError(f"server.listen: {url} and lpt:// there: an address speaks TLS or it does not")
        return self

    @model_validator(mode="after")
    def _check_roles(self) -> Config:
        ports, tokens = {port.name for port in self.port}, {token.name for token in self.token}
        for index, each in enumerate(self.role):
            for name in each.ports or ():
                if name not in ports:
                    raise ValueError(f"role[{index}].ports: there is no port {name}")
            for who in each.who:
                kind, _, name = who.partition(":")
                if kind == "token" and name != "*" and name not in tokens:
                    raise ValueError(f"role[{index}].who: there is no token {name!r}")
        return self

    @model_validator(mode="after")
    def _check_exposure(self) -> Config:
        for index, each in enumerate(self.server.listen):
            url = Url.parse(each.url)
            if not url.is_local and not each.insecure and self.lets_anybody_use(url.scheme == TLS):
                raise ValueError(f"server.listen[{index}]: {exposure_problem(url)}")
        return self

    def lets_anybody_use(self, is_tls: bool) -> bool:
        """Whether somebody unknown, who reaches a TCP listener, may allocate a port."""
        if is_tls and self.tls.client_certificate == "required":
            return False
        if not self.role:
            return not self.token
        return any(each.role != "observe" and not {"anyone", "anonymous"}.isdisjoint(each.who) for each in self.role)

    @property
    def has_tls_listener(self) -> bool:
        """Whether `[tls]` is needed."""
        return any(Url.parse(each.url).scheme == TLS for each in self.server.listen)

    def with_log_level(self, level: str) -> Config:
        """The same, but for what is logged."""
        return self.model_copy(update={"server": self.server.model_copy(update={"log_level": level})})

    def port_settings(self, port: PortConfig) -> PortSettings:
        """What `core` needs to know of a port."""
        return PortSettings(
            name=port.name,
            enable_connect_interrupt=port.enable_connect_interrupt,
            safe_data=port.safe_data,
            safe_control=port.safe_control,
            max_interrupt_rate_hz=port.max_interrupt_rate_hz,
            interrupt_log_frames=port.interrupt_log_frames,
            interrupt_linger_ns=int(port.interrupt_linger_s * 1e9),
            max_hold_ns=int(port.max_hold_s * 1e9),
            idle_hold_ns=int(port.idle_hold_s * 1e9),
            hold_warning_ns=int(port.hold_warning_s * 1e9),
            max_waiters=self.limits.max_waiters,
            max_pending_requests=self.limits.max_pending_requests,
            max_registrations=self.limits.max_registrations,
        )


def exposure_problem(url: Url) -> str:
    """Why a listener is refused that anybody on the network could use."""
    return (
        f"whoever reaches {url} from another machine could use the ports: make [[token]], [[role]] or required client "
        "certificates (lptctl token, lptctl cert), or say insecure = true there (with --simulate: --insecure)"
    )


def load(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError, which names every error with its path."""
    text = _read(path)
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise ConfigError([f"{path}: {config_problems.no_toml(text, exc, _tables())}"]) from exc
    try:
        return parse(values)
    except ConfigError as exc:
        raise ConfigError([f"{path}: {problem}" for problem in exc.problems]) from exc


def _read(path: Path) -> str:
    """A file's text, in UTF-8, with or without a byte order mark. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigError([f"{path}: cannot be read: {exc.strerror}"]) from exc
    if is_utf16(data):
        raise ConfigError([f"{path}: it is UTF-16: save it as UTF-8"])
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError([f"{path}: it exceeds the limit of {FILE_MAX_BYTES:,} bytes"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ConfigError([f"{path}: line {line} is not UTF-8: save the file as UTF-8"]) from exc


def parse(values: dict[str, Any]) -> Config:
    """Check settings as TOML gives them. Raises ConfigError."""
    try:
        return Config.model_validate(_tuples(values))
    except ValidationError as exc:
        raise ConfigError([*config_problems.explain(exc, _tables())]) from exc


def _tables() -> dict[str, str]:
    """How the heading of each table is written."""
    fields = Config.model_fields.items()
    return {name: f"[[{name}]]" if isinstance(field.default, tuple) else f"[{name}]" for name, field in fields}


def _tuples(value: Any) -> Any:
    """Arrays as tuples, as the frozen models have them."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
