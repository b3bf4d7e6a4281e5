"""lptctl revoke, kick, pause, resume: administration of one port."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from lptctl import outcome
from lptctl.common import Number, checked_text, open_port, to_json, url_option

C = TypeVar("C", bound=Callable[..., Any])

_LAST_SESSION: Final = 2**53 - 1  # which JavaScript's numbers count up to


def _check_reason(_context: click.Context, _parameter: click.Parameter, reason: str | None) -> str | None:
    return None if reason is None else checked_text(reason, "--reason")


def _common_options(what_for: str | None) -> Callable[[C], C]:
    """--json and --url; and --reason, if somebody is told it."""

    def decorate(command: C) -> C:
        as_json = click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer as JSON.")
        command = as_json(url_option(command))
        if what_for is None:
            return command
        return click.option("--reason", metavar="TEXT", help=what_for, callback=_check_reason)(command)

    return decorate


@click.command(epilog=outcome.HELP)
@_common_options("Why; the owner is told, and it stands in the daemon's log.")
def revoke(reason: str | None, as_json: bool, url: str) -> None:
    """Take the port from its owner.

    What it does is cut off, the lines go to their safe state, and whoever waits longest gets the port. The owner stays
    connected and is told; it may ask for the port again. If nobody owns the port, nothing happens (exit code 0).

    Needs the role admin on the port.

    \b
    Examples:
      lptctl revoke --reason "left running over the weekend"
      lptctl --url lpt+unix:///run/lptd/lptd.sock#LPT2 revoke
    """
    with open_port(url, "revoke") as port:
        answer = port.revoke(reason)
        name = port.session.port
    if answer.get("revoked") is None:
        _tell(answer, as_json, f"nobody owns {name}")
    else:
        grant = "" if answer.get("grant") is None else f" (grant {answer['grant']})"
        _tell(answer, as_json, f"session {answer['revoked']} has lost {name}{grant}")


@click.command(epilog=outcome.HELP)
@click.argument("session", type=Number(1, _LAST_SESSION))
@_common_options("Why; the client is told, and it stands in the daemon's log.")
def kick(session: int, reason: str | None, as_json: bool, url: str) -> None:
    """End a session of the port.

    All that it holds is released at once: the port, its place in the queue, its registrations. SESSION is its number,
    which `lptctl status`, `lptctl queue` and the daemon's log tell. Nothing keeps the client from connecting again.

    Needs the role admin on the port.

    \b
    Examples:
      lptctl kick 7
      lptctl kick 7 --reason "your program loops; call us: 4711"
    """
    with open_port(url, "kick") as port:
        answer = port.kick(session, reason)
    _tell(answer, as_json, f"session {answer.get('kicked', session)} has ended")


@click.command(epilog=outcome.HELP)
@_common_options("Why; the owner is told, and whoever asks for the status.")
def pause(reason: str | None, as_json: bool, url: str) -> None:
    """Take the port from everybody for a while.

    Its owner loses it, nobody is granted it, no register is touched, no interrupt is heard: for work at the cable, say.
    Who waits keeps the place, newcomers queue behind, and listeners stay. It lasts beyond the end of this command,
    until `lptctl resume` or the daemon's end.

    Needs the role admin on the port.

    \b
    Examples:
      lptctl pause --reason "the cable is being replaced"
      lptctl resume
    """
    with open_port(url, "pause") as port:
        answer = port.pause(reason)
        name = port.session.port
    was = " already" if answer.get("was") else ""
    _tell(answer, as_json, f"{name} is paused{was}; `lptctl resume` lets it go on")


@click.command(epilog=outcome.HELP)
@_common_options(None)
def resume(as_json: bool, url: str) -> None:
    """Let a paused port go on: whoever waits longest gets it.

    The lines are in their safe state by then. A port that is not paused stays as it is (exit code 0).

    Needs the role admin on the port.

    \b
    Examples:
      lptctl resume
      lptctl resume --json | jq .was
    """
    with open_port(url, "resume") as port:
        answer = port.resume_port()
        name = port.session.port
    _tell(answer, as_json, f"{name} goes on" if answer.get("was") else f"{name} was not paused")


def _tell(answer: dict[str, Any], as_json: bool, text: str) -> None:
    click.echo(to_json(answer) if as_json else outcome.escape(text))
