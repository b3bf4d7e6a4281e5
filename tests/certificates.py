"""Certificates for tests, made by the code of `lptctl cert`.

`ca` is the authority of all but `other/server` and `other/client`, which are of `other/ca`. `server`, and `server2`
made later, are for this host, `elsewhere` is for another; `expired` and `expired-client` ended yesterday, `future`,
`future-client` and the authority `future/ca` begin in ten days.
"""

from __future__ import annotations

import ssl
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from unittest import mock

from lpt_client import TlsOptions
from lptctl import authority

HERE = ("localhost", "127.0.0.1", "::1")
CLIENT = "stimulus-pc"


def make(folder: Path) -> None:
    """Fill an empty folder."""
    for each, days in ((folder, 825), (folder / "other", 825)):
        authority.init(each)
        _rename(authority.issue_server(each, HERE, days=days), "server")
        _rename(authority.issue_client(each, CLIENT, days=days), "client")
    _rename(authority.issue_server(folder, HERE), "server2")
    _rename(authority.issue_server(folder, ("elsewhere.example",)), "elsewhere")
    _rename(authority.issue_server(folder, HERE, days=-1), "expired")
    _rename(authority.issue_client(folder, CLIENT, days=-1), "expired-client")
    with _clock_ahead(timedelta(days=10)):
        _rename(authority.issue_server(folder, HERE), "future")
        _rename(authority.issue_client(folder, CLIENT), "future-client")
        authority.init(folder / "future")


def _clock_ahead(by: timedelta) -> AbstractContextManager[object]:
    """Let the authority believe that it is later."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Ahead:
            return super().now(tz) + by

    return mock.patch.object(authority, "datetime", Ahead)


def _rename(path: Path, name: str) -> None:
    for suffix in (".pem", ".key"):
        path.with_name(path.stem + suffix).rename(path.with_name(name + suffix))


def pair(folder: Path, name: str) -> tuple[str, str]:
    """The paths of a certificate and its key."""
    return str(folder / f"{name}.pem"), str(folder / f"{name}.key")


def options(folder: Path, name: str | None = None, ca: str = "ca") -> TlsOptions:
    """For a client that believes `ca` and shows `name`."""
    return TlsOptions(folder / f"{ca}.pem", *(() if name is None else pair(folder, name)))


def section(folder: Path, name: str = "server", **keys: Any) -> dict[str, Any]:
    """`[tls]` of a daemon."""
    certificate, key = pair(folder, name)
    return {"certificate": certificate, "key": key, "client_ca": str(folder / "ca.pem"), **keys}


def client_context(folder: Path, name: str | None = None, ca: str = "ca") -> ssl.SSLContext:
    """A client's context that is made without the SDK."""
    context = ssl.create_default_context(cafile=str(folder / f"{ca}.pem"))
    if name is not None:
        context.load_cert_chain(*pair(folder, name))
    return context
