"""lptctl cert: certificates for TLS, without openssl."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

import click

from lptctl.outcome import REFUSED, Failure

C = TypeVar("C", bound=Callable[..., Any])

_FOLDER: Final = "lpt-ca"
_EPILOG: Final = """\b
Exit codes: 0 done; 1 it could not be done; 2 wrong usage; 5 done, and the output could not be written.
"""

_directory = click.option(
    "--directory",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(_FOLDER),
    show_default=True,
    metavar="DIR",
    help="Where the authority is, and where the certificates go.",
)


def _days(default: int) -> Callable[[C], C]:
    return click.option(
        "--days",
        type=click.IntRange(1, 36_500),
        default=default,
        show_default=True,
        metavar="N",
        help="For how long it is valid.",
    )


@click.group(epilog=_EPILOG)
def cert() -> None:
    """Make certificates for TLS (lpts://).

    An authority of your own, then a certificate for each daemon, and if daemons are to know their clients by
    certificates, one for each client. Nothing is overwritten. Needs the Python package cryptography.

    \b
    Examples:
      lptctl cert init
      lptctl cert server lab-pc.example.org lab-pc 192.0.2.7
      lptctl cert client stimulus-pc
    """


@cert.command(epilog=_EPILOG)
@_directory
@_days(3650)
def init(folder: Path, days: int) -> None:
    """Make an authority.

    Its key (ca.key) can make certificates that all daemons and clients believe: it belongs on no computer of theirs.
    """
    with _authority() as authority:
        path = authority.init(folder, days=days)
    _made(path, days)
    option = "" if folder == Path(_FOLDER) else f" --directory {folder}"
    click.echo(f"Keep {folder / 'ca.key'} secret, and safe. Next, with the names that clients use in URLs:")
    click.echo(f"    lptctl cert server{option} HOSTNAME [IP-ADDRESS]")


@cert.command(epilog=_EPILOG)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_directory
@_days(825)
def server(names: tuple[str, ...], folder: Path, days: int) -> None:
    """Make a certificate for a daemon.

    NAME... are all host names and IP addresses that clients use in its URLs: they refuse it under any other. The files
    are called after the first one.
    """
    with _authority() as authority:
        path = authority.issue_server(folder, names, days=days)
    _made(path, days)
    click.echo("Next, on the daemon's computer, as root:")
    click.echo(f"    install -m 640 -g lpt {path} /etc/lptd/tls/server.pem")
    click.echo(f"    install -m 640 -g lpt {_key_of(path)} /etc/lptd/tls/server.key")
    click.echo(f"    install -m 640 -g lpt {folder / 'ca.pem'} /etc/lptd/tls/ca.pem")
    click.echo("a listener in /etc/lptd/config.toml such as lpts://0.0.0.0:5379, who may use it (`lptctl token`, or")
    click.echo("client certificates), then `systemctl reload lptd`. Clients:")
    click.echo(f"    LPT_CA={folder / 'ca.pem'} lptctl --url lpts://{_in_url(names[0])}:5379/LPT1 ping")


@cert.command(epilog=_EPILOG)
@click.argument("name")
@_directory
@_days(825)
def client(name: str, folder: Path, days: int) -> None:
    """Make a certificate for a client.

    A daemon with client_certificate = "optional" or "required" knows the client by NAME.
    """
    with _authority() as authority:
        path = authority.issue_client(folder, name, days=days)
    _made(path, days)
    click.echo('Next, in /etc/lptd/config.toml below [tls]: client_certificate = "required"')
    click.echo("and on the client's computer:")
    click.echo("    mkdir -p ~/.config/lpt")
    click.echo(f"    cp {folder / 'ca.pem'} ~/.config/lpt/ca.pem")
    click.echo(f"    cp {path} ~/.config/lpt/client.pem")
    click.echo(f"    install -m 600 {_key_of(path)} ~/.config/lpt/client.key")


@contextmanager
def _authority() -> Iterator[ModuleType]:
    """The module that does it, loaded now; its errors as lptctl's."""
    from lptctl import authority

    try:
        yield authority
    except authority.AuthorityError as exc:
        raise Failure(str(exc), REFUSED) from exc


def _made(path: Path, days: int) -> None:
    until = f"{datetime.now(timezone.utc) + timedelta(days=days):%Y-%m-%d}"
    click.echo(f"Made {path} (valid for {days} days, until {until}) and {_key_of(path)}.")


def _key_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".pem") + ".key")


def _in_url(name: str) -> str:
    return f"[{name}]" if ":" in name else name
