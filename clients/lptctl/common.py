"""What the commands share: options, values, the session, and the port for the moment of an operation."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

import click

from lpt_service.protocol.url import DEFAULT_URL, Url
from lptctl import signals
from lptctl.outcome import TIMED_OUT, USAGE, Failure, escape

if TYPE_CHECKING:
    from lpt_client import TlsOptions, blocking

C = TypeVar("C", bound=Callable[..., Any])

# What `lptctl run` tells its command; the first is what every lptctl reads.
URL_VARIABLE: Final = "LPT_URL"
GRANT_VARIABLE: Final = "LPT_GRANT"
_TOKEN_VARIABLE: Final = "LPT_TOKEN"  # noqa: S105 - where it is, not what it is
_TLS_VARIABLES: Final = ("LPT_CA", "LPT_CERTIFICATE", "LPT_KEY")
# For a command that wants the port for a moment only. `run` waits without end, as flock(1) does.
MOMENT_TIMEOUT_S: Final = 10.0
_NAME_CHARACTERS_MAX: Final = 100


# Options and values


def _remember_url(context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    """Before or after the command's name, both are natural; the one after it wins."""
    shared = context.find_root().meta
    if value is not None:
        shared["url"] = value
    return str(shared.get("url") or os.environ.get(URL_VARIABLE) or DEFAULT_URL)


url_option = click.option(
    "--url",
    metavar="URL",
    callback=_remember_url,
    help=f"The daemon and port: lpt://host:5378/LPT1 or lpt+unix:///path#LPT1.  [default: LPT_URL, else {DEFAULT_URL}]",
)


class Number(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # not generic before click 8.2
    """A whole number between two limits: decimal, 0x… or 0b…."""

    name = "number"

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or fail as wrong usage."""
        try:
            number = value if isinstance(value, int) else int(value, 0)
        except ValueError:
            self.fail(f"{escape(value)!r} is no whole number (85, 0x55 and 0b01010101 are)", param, ctx)
        if not self._least <= number <= self._most:
            self.fail(f"{value} is not between {self._least} and {self._most}", param, ctx)
        return number


class Seconds(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A time in seconds, from `least` on; finite."""

    name = "seconds"

    def __init__(self, least: float = 0.0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail as wrong usage."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds >= self._least):
            self.fail(f"{escape(value)!r} is no time in seconds from {self._least:g} on", param, ctx)
        return seconds


BYTE: Final = Number(0, 0xFF)


def waiting_options(default_s: float | None) -> Callable[[C], C]:
    """--timeout and --no-wait, as the arguments `timeout` (None: without end) and `no_wait`; see `patience_s`."""
    shown = "without end" if default_s is None else f"{default_s:g}"

    def decorate(command: C) -> C:
        timeout = click.option(
            "--timeout", type=Seconds(), metavar="S", help=f"Wait for the port at most S seconds.  [default: {shown}]"
        )
        no_wait = click.option("--no-wait", is_flag=True, help="Do not wait for the port: now or never.")
        return timeout(no_wait(command))

    return decorate


def patience_s(timeout: float | None, no_wait: bool, default_s: float | None = MOMENT_TIMEOUT_S) -> float | None:
    """How long to wait for the port, from the two options; None: without end."""
    if not no_wait:
        return default_s if timeout is None else timeout
    if timeout:
        raise click.UsageError("--timeout and --no-wait contradict each other")
    return 0.0


# The session


class SessionOptions(TypedDict):
    """How this process presents itself to the daemon."""

    client: str
    token: str | None
    tls: TlsOptions


def session_options(command: str) -> SessionOptions:
    """The name shown in the daemon's status, and the token: from the environment, for anybody can read arguments."""
    name = escape(f"lptctl {command}")[:_NAME_CHARACTERS_MAX]
    return {"client": f"{name}[{os.getpid()}]", "token": _token(), "tls": tls_options()}


def _token() -> str | None:
    token = bare_token(os.environ.get(_TOKEN_VARIABLE, ""))
    if not token.isprintable():
        raise Failure(
            f"{_TOKEN_VARIABLE} is no token: it has characters that are not printable, or is not UTF-8", USAGE
        )
    return checked_text(token, _TOKEN_VARIABLE) or None


def checked_text(text: str, name: str) -> str:
    """Text, no longer than the daemon accepts. Raises Failure, which says how long it may be."""
    from lpt_client import values

    try:
        return values.text(text, name)
    except ValueError as exc:
        raise Failure(str(exc), USAGE) from exc


def bare_token(text: str) -> str:
    """A token without what a file may have around it: a byte order mark, spaces, line ends."""
    return text.removeprefix("\ufeff").strip()


def tls_options() -> TlsOptions:
    """What LPT_CA, LPT_CERTIFICATE and LPT_KEY name; else ca.pem, client.pem and client.key in ~/.config/lpt."""
    from lpt_client import TlsOptions

    ca, certificate, key = (os.environ.get(name) or None for name in _TLS_VARIABLES)
    folder = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "lpt")
    if ca is None:
        ca = _existing(folder, "ca.pem")
    if certificate is None and key is None:
        certificate, key = _existing(folder, "client.pem"), _existing(folder, "client.key")
    return TlsOptions(ca, certificate, key)


def _existing(folder: str, name: str) -> str | None:
    path = os.path.join(folder, name)
    return path if os.path.exists(path) else None


@contextmanager
def open_port(url: str, command: str) -> Iterator[blocking.Port]:
    """A session of the blocking client, for the length of the block."""
    from lpt_client import blocking

    options = session_options(command)
    signals.end_in_order()
    with blocking.open_port(url, **options) as port:
        yield port


# The port


class PlaceLine:
    """Shows on standard error at which place the port is waited for; on a terminal in one line that is rewritten."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = False

    def show(self, port_name: str, position: int) -> None:
        """The place in the queue is now this; 1 is next."""
        line = f"lptctl: waiting for {escape(port_name)}: place {position}"
        if self._is_terminal:
            self._is_shown = True
            click.echo(f"\r{line}\x1b[K", err=True, nl=False)
        else:
            click.echo(line, err=True)

    def clear(self) -> None:
        """The waiting is over."""
        if self._is_shown:
            self._is_shown = False
            click.echo("\r\x1b[K", err=True, nl=False)


@contextmanager
def owned_port(url: str, command: str, timeout_s: float | None) -> Iterator[blocking.Port]:
    """A port that is owned for the length of the block.

    The place in the queue is shown where a person sees it. Raises Failure if the port is not got in time.
    """
    from lpt_client.errors import TimedOut

    with open_port(url, command) as port, ExitStack() as stack:
        if grant_around(url) is not None:
            refuse_deadlock(grant_around(url), port.status())
        place = PlaceLine()
        name = port.session.port
        on_queued = (lambda position: place.show(name, position)) if sys.stderr.isatty() else None
        try:
            stack.enter_context(port.allocated(timeout_s, on_queued=on_queued))
        except TimedOut as error:
            raise not_got(port.status(), error.detail, timeout_s) from None
        finally:
            place.clear()
        yield port


def not_got(status: dict[str, Any], detail: str, timeout_s: float | None, exit_code: int = TIMED_OUT) -> Failure:
    """The port was not got in time. `detail` is what the daemon said of it, `status` how things are now."""
    name = f"{status.get('port')} was not got" + (f" within {timeout_s:g} s" if timeout_s else "")
    return Failure(f"{name}: {_why_not(status, detail)}; wait longer with --timeout", exit_code)


def _why_not(status: dict[str, Any], detail: str) -> str:
    owner = status.get("owner")
    if owner:
        return f"{owner.get('client')} ({owner.get('peer')}) owns it"
    if status.get("paused") is not None:
        return f"it is paused ({status['paused'] or 'no reason was given'})"
    if status.get("draining"):
        return "its daemon grants nobody new"
    return detail or "its owner has only just gone"


def grant_around(url: str) -> int | None:
    """The grant of the `lptctl run` around this process, if that holds the same port."""
    from lpt_client.errors import UrlError

    try:
        grant = int(os.environ.get(GRANT_VARIABLE, ""))
        return grant if Url.parse(os.environ.get(URL_VARIABLE, "")) == Url.parse(url) else None
    except (UrlError, ValueError):
        return None


def refuse_deadlock(grant: int | None, status: dict[str, Any]) -> None:
    """Raise Failure if the port is owned by the `lptctl run` of this grant: it waits for this very process."""
    owner = status.get("owner")
    if owner and owner.get("grant") == grant:
        raise Failure(
            f"{status.get('port')} is held by the `lptctl run` around this command, which would wait for it without "
            "end; use another way to reach the port in there, or this command outside of it",
            TIMED_OUT,
        )


# Output


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON in ASCII, without control characters."""
    # The one control character that JSON leaves as it is.
    return json.dumps(value, indent=indent, default=repr).replace("\x7f", "\\u007f")
