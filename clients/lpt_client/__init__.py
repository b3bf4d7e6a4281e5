"""The Python client of lpt-service: a parallel port that a daemon shares over the network.

Under trio:

    async with lpt_client.open_port("lpt://lab-pc/LPT1") as port:
        async with port.allocated(timeout=10):
            await port.pulse(0x55, width_us=1000)

Without (needs no package but msgpack, runs on any system):

    with lpt_client.blocking.open_port("lpt://lab-pc/LPT1") as port:
        with port.allocated(timeout=10):
            port.pulse(0x55, width_us=1000)

`open_port`, `Port` and `Interrupts` are those of the trio client, which is imported when one of them is first used.
"""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lpt_client.errors import (
    AccessDenied,
    BufferTooSmall,
    ConnectFailed,
    ConnectionLost,
    ConversationError,
    DeviceFailed,
    HelloRefused,
    InvalidDeviceState,
    InvalidParameter,
    LimitReached,
    LptError,
    NotConnected,
    NotSupported,
    OtherProcess,
    PortClosed,
    PortPaused,
    PortRemoved,
    PortStopped,
    RequestCancelled,
    RequestError,
    Revoked,
    TimedOut,
    Unsuccessful,
    UrlError,
)
from lpt_client.events import Event, Interrupt, LeaseWarning, Mark, Reconnected, SessionInfo, Sync
from lpt_client.sockets import TlsOptions
from lpt_service import __version__
from lpt_service.protocol.libraries import missing_library

if TYPE_CHECKING:
    import lpt_client.blocking as blocking
    from lpt_client.trio_client import Port, open_port
    from lpt_client.trio_interrupts import Interrupts

__all__ = [
    "open_port",
    "Port",
    "Interrupts",
    "blocking",
    "Event",
    "Interrupt",
    "Mark",
    "Sync",
    "Reconnected",
    "SessionInfo",
    "LeaseWarning",
    "TlsOptions",
    "LptError",
    "RequestError",
    "AccessDenied",
    "Revoked",
    "TimedOut",
    "RequestCancelled",
    "InvalidDeviceState",
    "InvalidParameter",
    "BufferTooSmall",
    "Unsuccessful",
    "NotSupported",
    "LimitReached",
    "PortPaused",
    "PortRemoved",
    "DeviceFailed",
    "HelloRefused",
    "NotConnected",
    "ConnectFailed",
    "ConnectionLost",
    "PortClosed",
    "OtherProcess",
    "PortStopped",
    "ConversationError",
    "UrlError",
    "__version__",
]

# Name → where it is, for what a program that uses the blocking client alone should not have to load.
_LATER = {
    "open_port": "lpt_client.trio_client",
    "Port": "lpt_client.trio_client",
    "Interrupts": "lpt_client.trio_interrupts",
}


def __getattr__(name: str) -> Any:
    try:
        if name == "blocking":
            return importlib.import_module("lpt_client.blocking")
        if name in _LATER:
            return getattr(importlib.import_module(_LATER[name]), name)
    except ImportError as exc:
        _explain(name, exc)
        raise
    raise AttributeError(f"module 'lpt_client' has no attribute {name!r}")


def _explain(name: str, error: ImportError) -> None:
    """Have an error say which library is missing, and what to do."""
    said = missing_library(error, "trio" if name in _LATER else "")
    if said is not None:
        instead = "; lpt_client.blocking does without" if name in _LATER and error.name != "msgpack" else ""
        error.msg = f"lpt_client.{name} needs {said.replace(' ', ', which ', 1)}{instead}"


def __dir__() -> list[str]:
    # help() and completion look at every name that is listed: without trio they would fail.
    return sorted({*globals(), *__all__} - (set() if _is_installed("trio") else _LATER.keys()))


def _is_installed(library: str) -> bool:
    with suppress(ImportError):  # of an import hook that refuses it
        return importlib.util.find_spec(library) is not None
    return False
