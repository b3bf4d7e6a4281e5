"""lptctl run: hold the port while a command runs, as flock(1) holds a file."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import click

from lptctl import outcome, signals
from lptctl.common import Seconds, patience_s, url_option, waiting_options

_EPILOG = """\b
Exit codes: the command's own (if signal n ended it, this dies of n, too: 128+n in a shell), or
  1    the daemon refused; its status is shown
  2    wrong usage: an option, a value, a URL
  3    the daemon cannot be reached, or the port was lost while the command ran
  4    the port was not got in time (-E chooses another)
  126  the command cannot be executed
  127  there is no such command
"""


@click.command(epilog=_EPILOG, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@waiting_options(None)
@click.option(
    "-E",
    "--conflict-exit-code",
    type=click.IntRange(0, 255),
    default=outcome.TIMED_OUT,
    show_default=True,
    metavar="N",
    help="The exit code when the port is not got in time.",
)
@click.option(
    "--on-lost",
    type=click.Choice(["kill", "ignore"]),
    default="kill",
    show_default=True,
    help="If the port is lost while the command runs: end the command (SIGTERM, then SIGKILL), or let it go on.",
)
@click.option(
    "--kill-after",
    type=Seconds(),
    metavar="S",
    help="How long after SIGTERM the command is killed.  [default: 5]",
)
@url_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    timeout: float | None,
    no_wait: bool,
    conflict_exit_code: int,
    on_lost: str,
    kill_after: float | None,
    url: str,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND while holding the port.

    A lock, as flock(1) is one for a file: nobody else owns the port meanwhile. Waits in the queue, and shows its place
    on standard error. In COMMAND's environment LPT_URL names the port, LPT_GRANT is the number of the grant. COMMAND
    can read and listen; it cannot write or pulse, for this process owns the port, and not COMMAND.

    The command's exit code is given back. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to it
    (Ctrl-C on a terminal reaches it from there); before it has started they end the waiting. Signals that are ignored
    (except SIGCHLD, SIGPIPE and SIGXFSZ) or blocked, and closed standard streams, it gets as this process got them. On
    Linux it gets SIGTERM if this process is killed, and what it leaves running at its end is listed on standard error.
    This may be the first process of a container.

    If the port is lost meanwhile (the connection broke, or the port was taken away) that is said on standard error,
    the command is ended, and the exit code is 3; with --on-lost ignore it goes on, without the port.

    A port with a grace time (grace_s in the daemon's configuration) outlasts a broken connection: the command goes on,
    and the waiting keeps its place, if the connection is back in time; both are said. A port with a lease may be taken
    away from whoever holds it for long; that is said some time before. (As `run` itself does nothing with the port, it
    is idle.)

    \b
    Examples:
      lptctl run -- ./experiment.sh
      lptctl run --timeout 60 -- python3 record.py --block 3
      lptctl run --no-wait -E 75 -- ./flash.sh; [ $? -eq 75 ] && echo "the port is busy"
    """
    import trio

    from lptctl.holding import Holder

    holder = Holder(
        url,
        command,
        timeout_s=patience_s(timeout, no_wait, None),
        conflict_exit_code=conflict_exit_code,
        is_ended_with_port=on_lost == "kill",
        kill_after_s=kill_after,
    )
    signals.end_in_order()
    return trio.run(holder.run)
