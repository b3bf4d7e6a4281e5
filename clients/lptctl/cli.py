r"""The entry of lptctl: its commands, loaded when used, and what becomes of their errors."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import importlib
import io
import signal
import sys
from collections.abc import Sequence
from typing import Final

import click

from lpt_service import __version__
from lptctl import outcome, signals, streams
from lptctl.common import url_option

# Heading of the help → command → module, loaded when it is used: the start of a command is what a script's loop feels.
_GROUPS: Final = {
    "Look at the port": {
        "status": "lptctl.status_command",
        "queue": "lptctl.queue_command",
        "listen": "lptctl.listen_command",
        "read": "lptctl.register_commands",
    },
    "Use the port": {
        "run": "lptctl.run_command",
        "write": "lptctl.register_commands",
        "pulse": "lptctl.register_commands",
    },
    "Measure": {
        "ping": "lptctl.ping_command",
        "latency": "lptctl.latency_command",
    },
    "Administer (role admin)": {
        "revoke": "lptctl.admin_commands",
        "kick": "lptctl.admin_commands",
        "pause": "lptctl.admin_commands",
        "resume": "lptctl.admin_commands",
        "drain": "lptctl.drain_command",
    },
    "Set up (no daemon is asked)": {
        "token": "lptctl.token_command",
        "cert": "lptctl.cert_command",
    },
}
_COMMANDS: Final = {name: module for group in _GROUPS.values() for name, module in group.items()}


class _Commands(click.Group):
    """The commands, in the order of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, _COMMANDS))
        for heading, names in _GROUPS.items():
            commands = {name: self.get_command(ctx, name) for name in names}
            rows = [(name, each.get_short_help_str(width)) for name, each in commands.items() if each is not None]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = getattr(importlib.import_module(module), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, epilog=outcome.HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lptctl")
@url_option
def cli(url: str) -> None:
    """Use a parallel port that lptd shares, from the shell.

    \b
    Examples:
      lptctl status --watch                      who owns the port, who waits
      lptctl run -- ./experiment.sh              hold the port while a command runs
      lptctl pulse 0x01 --width-us 5000          a trigger of 5 ms on D0
      lptctl listen --json                       interrupts as they come
      lptctl revoke --reason "gone home"         take the port from its owner (role admin)
      lptctl --url lpt://lab-pc/LPT1 ping        another daemon

    A daemon that wants a token finds it in the environment variable LPT_TOKEN. For TLS (lpts://), LPT_CA names the
    authority's certificate, LPT_CERTIFICATE and LPT_KEY this client's own; without them ca.pem, client.pem and
    client.key are looked for in ~/.config/lpt, and else the system's authorities are believed.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run lptctl; its exit code.

    Without `arguments` this process is lptctl: those of the process are taken, its standard streams are taken over, and
    what a signal ends dies of that signal.
    """
    if arguments is None:
        streams.take_over()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may have letters that this terminal has not
    result = _run(arguments)
    if result >= 0:
        return result
    if arguments is None:
        signals.die_of(-result)
    return outcome.SIGNAL_BASE - result


def _is_interrupt(error: BaseException) -> bool:
    """Whether it is KeyboardInterrupt, or a group with one: so a nursery of trio raises it."""
    return isinstance(error, KeyboardInterrupt) or any(map(_is_interrupt, getattr(error, "exceptions", ())))


def _run(arguments: Sequence[str] | None) -> int:
    """The exit code, or -n for signal n."""
    try:
        result = cli.main(
            args=None if arguments is None else list(arguments), prog_name="lptctl", standalone_mode=False
        )
        sys.stdout.flush()
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        return -signal.SIGINT
    except streams.ReaderGone:
        return -signal.SIGPIPE
    except Exception as exc:
        failure = outcome.failure_of(exc)
        if failure is None:
            raise
        outcome.say(str(failure))
        return failure.exit_code
    except BaseException as exc:
        if not _is_interrupt(exc):
            raise
        return -signal.SIGINT
    return result if isinstance(result, int) else outcome.OK
