"""lptd: the daemon's command line. argv → Config → trio.run → exit code."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the clients run on 3.10, so the package installs there
    sys.exit(f"lptd needs Python 3.11 or newer, this is {sys.version.split()[0]} (the client library runs on 3.10)")

import faulthandler
import json
import os
import resource
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lpt_service import __version__
from lpt_service.ending import (
    EXIT_CODES,
    EXIT_FAILED,
    EXIT_USAGE,
    complain,
    explain,
    noted_signals,
    output_failure,
    prepare_standard_streams,
)
from lpt_service.output import background_output, unblocking_copy
from lpt_service.protocol.codec import is_accelerated, msgpack_version
from lpt_service.protocol.text import escape
from lpt_service.protocol.url import Url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lpt_service.config import Config
    from lpt_service.server.daemon import Daemon

_DEFAULT_CONFIG: Final = "/etc/lptd/config.toml"
_MSGPACK_LEAST: Final = (1, 2, 4)


class _Commands(click.Group):
    """The commands; each way in which they end is one line at the most, and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        prepare_standard_streams()
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _writing():  # --help and --version
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _writing():
            code = super().invoke(ctx)
        raise click.exceptions.Exit(code or 0)


@contextmanager
def _writing() -> Iterator[None]:
    """What becomes of output that is not taken."""
    try:
        yield
    except OSError as exc:
        if exc.filename is not None:  # another file than standard output
            raise
        raise click.exceptions.Exit(output_failure(exc)) from exc


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="lptd")
def main() -> None:
    """Share a parallel port over the network.

    \b
    Try it on any machine:      lptd demo
    Serve a simulated port:     lptd serve --simulate
    Serve as configured:        lptd serve --config /etc/lptd/config.toml
    Find out what is wrong:     lptd doctor

    Clients use lptctl, or the Python package lpt_client.
    """


@main.command(epilog=EXIT_CODES, short_help="Serve until SIGTERM or SIGINT.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help=f"The configuration file.  [default: {_DEFAULT_CONFIG}]",
)
@click.option("--simulate", is_flag=True, help="Serve a simulated port LPT1 with a loop-back plug; no configuration.")
@click.option(
    "--listen",
    "listen",
    multiple=True,
    metavar="URL",
    help="With --simulate: where to listen, for example lpt://127.0.0.1:0 (port 0 picks a free one) or "
    "lpt+unix:///tmp/lptd.sock. May be given several times.  [default: lpt://127.0.0.1:5378]",
)
@click.option("--insecure", is_flag=True, help="With --simulate: let anybody on the network use the port.")
@click.option("--pulse-hz", type=float, metavar="N", help="With --simulate: raise N interrupts a second.  [default: 0]")
@click.option("--until-eof", is_flag=True, hidden=True, help="Stop when standard input, a pipe, ends: with a parent.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: as configured]")
def serve(
    config_path: Path | None,
    simulate: bool,
    listen: tuple[str, ...],
    insecure: bool,
    pulse_hz: float | None,
    log_level: str | None,
    until_eof: bool,
) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the configuration again.

    Prints one line "listening on URL" for each listener and port once clients can connect; the log goes to standard
    error.

    \b
    Examples:
      lptd serve --simulate --listen lpt://127.0.0.1:0 --pulse-hz 10
      lptd serve --config ./config.toml
    """
    if simulate and config_path is not None:
        raise click.UsageError("--simulate and --config exclude each other")
    if not simulate and (listen or insecure or pulse_hz is not None):
        raise click.UsageError(
            "--listen, --insecure and --pulse-hz go with --simulate; otherwise the configuration says it"
        )
    _check_msgpack()
    from lpt_service import config as settings

    if simulate:
        port = {"name": "LPT1", "device": "simulated", "enable_connect_interrupt": True, "pulse_hz": pulse_hz or 0.0}
        urls = listen or ("lpt://127.0.0.1:5378",)
        listeners = [{"url": url, "insecure": True} if insecure else url for url in urls]
        values = {"server": {"listen": listeners}, "port": [port]}

        def read() -> Config:
            return settings.parse(values)
    else:
        path = config_path or Path(_DEFAULT_CONFIG)

        def read() -> Config:
            return settings.load(path)

    def reread() -> Config:
        config = read()
        return config if log_level is None else config.with_log_level(log_level)

    return _run_daemon(_load_or_exit(reread), reread, until_eof=until_eof)


@main.command("check-config", short_help="Say what is wrong with a configuration file.")
@click.argument("config_path", type=click.Path(path_type=Path), default=_DEFAULT_CONFIG, metavar="[FILE]")
@click.option("--config", "config_option", type=click.Path(path_type=Path), help="The same as FILE.")
def check_config(config_path: Path, config_option: Path | None) -> None:
    """Check a configuration file, and say what is wrong with it.

    FILE is /etc/lptd/config.toml if left out. Exit code 0 if it is good, 2 if it is not; every error is named with its
    path.
    """
    from lpt_service import config as settings

    path = config_option or config_path
    config = _load_or_exit(lambda: settings.load(path))
    names = ", ".join(port.name for port in config.port)
    click.echo(f"{escape(path)}: good; port {names} on {', '.join(each.url for each in config.server.listen)}")


@main.command(short_help="Say what on this machine keeps it from serving.")
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON: check, is_well, what, advice.")
@click.option("--root", type=click.Path(path_type=Path), default="/", hidden=True, help="Another machine's files.")
def doctor(as_json: bool, root: Path) -> int:
    """Say what on this machine keeps the daemon from serving, and what to type about it.

    Looks at the configuration, the user, certificates, modules, devices, who holds them, the service, and each listener
    and who opened it; changes nothing. Root sees all of it. Exit code 0 when all is well, 1 otherwise.
    """
    from lpt_service.doctor.checks import examine
    from lpt_service.doctor.machine import Machine

    findings = examine(Machine(root), _msgpack_problem())
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.is_well else 'WRONG'} {finding.check}: {finding.what}")
            if not finding.is_well:
                click.echo(f"      → {finding.advice}")
    return 0 if all(finding.is_well for finding in findings) else EXIT_FAILED


@main.command(short_help="Watch three clients share a simulated port.")
@click.option("--plain", is_flag=True, help="Lines instead of a live display (the default where there is no terminal).")
def demo(plain: bool) -> int:
    """Watch three clients share a simulated port, for about ten seconds.

    Starts a daemon on loopback and three client processes that contend for the port and listen to its interrupts; one
    of them is killed while it owns. At the end every client's account is checked: generated = received + lost. Exit
    code 0 only if it holds.
    """
    _check_msgpack()
    from lpt_service import config  # noqa: F401 - if the demo's daemon must do without its library, it is said once
    from lpt_service.demo import run_demo

    return run_demo(plain=plain)


def _load_or_exit(load: Callable[[], Config]) -> Config:
    from lpt_service.config import ConfigError

    try:
        return load()
    except ConfigError as exc:
        for problem in exc.problems:
            complain(problem)
        if not Path(_DEFAULT_CONFIG).exists() and _DEFAULT_CONFIG in exc.problems[0]:
            complain("name a file with --config, or try `lptd serve --simulate`")
        sys.exit(EXIT_USAGE)


def _check_msgpack() -> None:
    problem = _msgpack_problem()
    if problem is not None:
        complain(problem)
        sys.exit(EXIT_FAILED)


def _msgpack_problem() -> str | None:
    version = ".".join(map(str, msgpack_version()))
    if not is_accelerated():
        return (
            f"msgpack {version} runs as its pure-Python fallback, which is too slow and knows fewer limits; "
            "install a build with the C extension (pip install --force-reinstall 'msgpack>=1.2.4') and unset "
            "MSGPACK_PUREPYTHON"
        )
    if msgpack_version() < _MSGPACK_LEAST:
        return (
            f"msgpack {version} can be made to use hundreds of megabytes by one small frame; "
            "1.2.4 or newer is needed (pip install 'msgpack>=1.2.4')"
        )
    return None


@background_output()
def _run_daemon(config: Config, reread: Callable[[], Config], *, until_eof: bool) -> int:
    import trio

    from lpt_service import log
    from lpt_service.server.daemon import Daemon
    from lpt_service.server.systemd import take_over

    log.configure(config.server.log_level)
    faulthandler.enable(unblocking_copy(2))  # a stuck daemon that is killed with SIGABRT says where it was
    _raise_descriptor_limit()

    async def run() -> None:
        daemon = Daemon(config, announce=_announce, reread=reread, handover=take_over())
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.handle_signals)
            for number in noted:
                daemon.heed(number)
            if until_eof:
                nursery.start_soon(_stop_at_end_of_input, daemon)
            await daemon.run()
            nursery.cancel_scope.cancel()

    with noted_signals() as noted:
        try:
            trio.run(run)
        except (Exception, BaseExceptionGroup) as exc:
            explain(exc)
            return EXIT_FAILED
    return 0


async def _stop_at_end_of_input(daemon: Daemon) -> None:
    import trio

    async with trio.lowlevel.FdStream(os.dup(0)) as stream:
        async for _ in stream:
            continue
    daemon.stop()


def _announce(url: Url) -> None:
    print(f"listening on {url}")


def _raise_descriptor_limit() -> None:
    """As many connections as the system allows: the soft limit is often 1024 for the sake of select(2) alone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return
