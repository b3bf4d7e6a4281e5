"""lptctl token: bearer tokens, of which the daemon knows the SHA-256 alone."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import json
import sys
from typing import Final

import click

from lpt_service.protocol.text import is_utf16
from lptctl import signals
from lptctl.common import bare_token, to_json
from lptctl.outcome import USAGE, Failure

_TOKEN_BYTES: Final = 32  # 256 bits: nobody guesses it, so a plain SHA-256 keeps it
_NAME: Final = "client"
_NAME_CHARACTERS: Final = range(1, 65)

_EPILOG: Final = """\b
Exit codes: 0 done; 2 wrong usage; 5 the output could not be written.
"""


@click.command(epilog=_EPILOG)
@click.argument("name", required=False)
@click.option("--hash", "is_hash", is_flag=True, help="Make none: read one from standard input, print its SHA-256.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON map: name, token, sha256; with --hash the last.")
def token(name: str | None, is_hash: bool, as_json: bool) -> None:
    """Make a token, by which a daemon knows a client.

    Prints the token, for the client, and what the daemon's configuration gets: its SHA-256, from which nobody finds
    the token. It is shown this once and kept nowhere. NAME says whose it is, for people and for [[role]] tables; it
    is "client" if left out. No daemon is asked.

    \b
    Examples:
      lptctl token "stimulus PC"
      lptctl token --hash < token.txt
    """
    if is_hash:
        if name is not None:
            raise click.UsageError("NAME is for a new token, --hash for one that there is")
        digest = sha256_of(_given_token())
        click.echo(to_json({"sha256": digest}) if as_json else f'sha256 = "{digest}"')
        return
    import secrets

    name = _checked(_NAME if name is None else name)
    made = secrets.token_urlsafe(_TOKEN_BYTES)
    digest = sha256_of(made)
    click.echo(to_json({"name": name, "token": made, "sha256": digest}) if as_json else _text(name, made, digest))


def sha256_of(token: str) -> str:
    """What the daemon knows of a token."""
    import hashlib

    return hashlib.sha256(token.encode()).hexdigest()


def _given_token() -> str:
    """The token on standard input: a line, or typed without being shown."""
    if sys.stdin.isatty():
        signals.end_in_order()  # the terminal is to show again what is typed
        given = str(click.prompt("Token", hide_input=True, err=True))
    else:
        try:
            data = sys.stdin.buffer.read()
            if is_utf16(data):
                raise Failure("standard input is UTF-16: save the token as UTF-8", USAGE)
            given = data.decode()
        except OSError as exc:
            raise Failure(f"standard input cannot be read: {exc.strerror}", USAGE) from exc
        except UnicodeDecodeError:
            raise Failure("standard input is no text, so it is no token", USAGE) from None
    given = bare_token(given)
    if not given or "\n" in given:
        raise Failure("standard input must be one token on one line", USAGE)
    return given


def _checked(name: str) -> str:
    if len(name) not in _NAME_CHARACTERS or not name.isprintable() or name == "*":  # token:* is every token
        raise Failure(
            f"{name!r} is no name for a token: up to {_NAME_CHARACTERS[-1]} printable characters, not * alone", USAGE
        )
    return name


def _text(name: str, token: str, digest: str) -> str:
    who = _toml(f"token:{name}")
    return f"""\
For the client, and nobody else; it is not shown again:
    export LPT_TOKEN={token}
Programs of lpt_client give it as open_port(..., token=...).

For the daemon, into /etc/lptd/config.toml; then `systemctl reload lptd`:
    [[token]]
    name = {_toml(name)}
    sha256 = "{digest}"

Without any [[role]] table there, whoever has a token may use every port. With some, this one needs its own:
    [[role]]
    who = [{who}]
    role = "use"        # or "observe", or "admin"; for some ports alone: ports = ["LPT1"]"""


def _toml(text: str) -> str:
    """A TOML string. What JSON escapes in printable text, TOML escapes alike."""
    return json.dumps(text, ensure_ascii=False)
