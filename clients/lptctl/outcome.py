"""How lptctl ends: its exit codes, and the one line that says what went wrong and what to do.

0    done
1    the daemon refused; its status is shown
2    wrong usage: an option, a value, a URL
3    the daemon cannot be reached, or the connection (or the port while it was owned) was lost
4    timed out: the port was not got in time (`run -E N` chooses another), `listen --count` not reached,
     or `latency` without an interrupt
5    standard output, or a file of results, could not be written; what was asked for may have been done
126  `run`, `drain`: the command cannot be executed        127  there is no such command
128+n  ended by signal n, as a shell shows it (130: Ctrl-C; 141: the reader of the output has gone)

`run` and `drain` otherwise end as their command ends. What a signal ends dies of that signal, so that a shell which
runs it in a loop ends the loop. Within lptctl, -n stands for that, as in subprocess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from lpt_service.protocol.text import escape as escape

if TYPE_CHECKING:
    from lpt_client import errors

OK: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
LOST: Final = 3
TIMED_OUT: Final = 4
UNWRITABLE: Final = 5
CANNOT_EXECUTE: Final = 126
NO_SUCH_COMMAND: Final = 127
SIGNAL_BASE: Final = 128

HELP: Final = """\b
Exit codes:
  0      done
  1      the daemon refused; its status is shown
  2      wrong usage: an option, a value, a URL
  3      the daemon cannot be reached, or the connection was lost
  4      the port was not got in time
  5      the output could not be written
  128+n  ended by signal n (130: Ctrl-C)
"""


class Failure(Exception):  # noqa: N818 - not always an error: somebody else may just own the port
    """An end with one line on standard error, and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def say(message: str) -> None:
    """One line on standard error, marked as ours."""
    click.echo(f"lptctl: {escape(message)}", err=True)


def failure_of(error: Exception) -> Failure | None:
    """What to tell about an error; None for one that is neither of lptctl nor of the SDK."""
    from lpt_client import errors

    if isinstance(error, Failure):
        return error
    if not isinstance(error, errors.LptError):
        return None
    if isinstance(error, errors.UrlError):
        return Failure(str(error), USAGE)
    if isinstance(error, errors.ConnectFailed) and isinstance(error.__cause__, UnicodeError):
        return Failure(f"{error}; check --url and LPT_URL", USAGE)  # a host that cannot be one
    if isinstance(error, errors.ConnectFailed):
        advice = _reach_advice(error)
        return Failure(f"cannot reach the daemon: {error}" + (f" ({advice})" if advice else ""), LOST)
    if isinstance(error, errors.TimedOut):
        return Failure(f"{error}; wait longer with --timeout", TIMED_OUT)
    if isinstance(error, errors.Revoked):
        return Failure(f"{error.detail}; `lptctl status` shows who owns it now", LOST)
    if isinstance(error, errors.RequestError):
        advice = _refusal_advice(error)
        return Failure(f"the daemon refused: {error}" + (f"; {advice}" if advice else ""), REFUSED)
    if isinstance(error, errors.ConversationError):
        return Failure(f"no lptd of this version answers there: {error}; check --url and LPT_URL", LOST)
    if isinstance(error, errors.PortStopped):
        return Failure(f"{error}; `lptctl status` shows how it is now", LOST)
    return Failure(f"connection lost: {error}; try again when the daemon is back", LOST)


def _reach_advice(error: Exception) -> str:
    from lpt_client.sockets import TlsFailed

    if isinstance(error.__cause__, TlsFailed):
        return ""  # it says itself what to do
    if isinstance(error.__cause__, PermissionError):
        return "this user may not use the socket: join the group that it belongs to"
    return "start lptd there, or name another daemon with --url or LPT_URL"


def _refusal_advice(error: errors.RequestError) -> str:
    """What to do about a refusal, where the daemon's own words may not say it."""
    from lpt_client import errors
    from lpt_service.protocol.status import Status

    if error.status == Status.STATUS_ACCESS_DENIED and error.detail.startswith("role: "):
        return (
            "roles stand in the daemon's configuration, [[role]]; a token (LPT_TOKEN) or a certificate says who you are"
        )
    if isinstance(error, errors.HelloRefused):
        return _hello_advice(error)
    if isinstance(error, errors.InvalidParameter) and error.detail.startswith("method: "):
        return "this daemon is older than lptctl, and cannot do that"
    if isinstance(error, errors.InvalidParameter) and error.detail.startswith("session: "):
        return "`lptctl status` and `lptctl queue` tell the numbers of sessions"
    if error.status == Status.STATUS_DEVICE_NOT_READY:
        return "`lptctl resume` lets it go on"
    if isinstance(error, errors.Unsuccessful):
        return "whoever runs the daemon can turn it on"
    if isinstance(error, errors.PortRemoved):
        return "`lptctl status` shows when it is back"
    if isinstance(error, errors.LimitReached):
        return "try again later"
    if isinstance(error, errors.DeviceFailed):
        return "the daemon's log says more"
    return ""


def _hello_advice(error: errors.HelloRefused) -> str:
    from lpt_service.protocol.status import Status

    if error.status == Status.STATUS_NO_SUCH_DEVICE:
        return "the URL ends in the name of the port; the daemon's configuration names its ports"
    if error.status == Status.STATUS_INSUFFICIENT_RESOURCES:
        return "try again later"
    if error.status != Status.STATUS_ACCESS_DENIED:
        return "lptctl and lptd may be of different versions"
    if error.detail.startswith("token: missing"):
        return "put the token that this daemon wants into the environment variable LPT_TOKEN"
    return ""
