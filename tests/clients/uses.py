"""Every use of a port that there is, found by looking: what is added to a front end later is tested with the rest."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lpt_service.protocol.ioctl import Ioctl

# What is given for each required parameter, by its name.
_VALUES: Mapping[str, Any] = {
    "code": int(Ioctl.READ_PORT_UCHAR),
    "deferred": print,
    "mask": 0,
    "offset": 0,
    "session": 1,
    "value": 1,
    "width_us": 10,
}


def public_names(cls: type) -> list[str]:
    """Of a class and its bases."""
    return [name for name in dir(cls) if not name.startswith("_")]


def methods(port: object) -> dict[str, Callable[[], Any]]:
    """The public methods of a port, each ready to be called."""
    return {
        name: partial(method, *_arguments(method)[0], **_arguments(method)[1])
        for name in public_names(type(port))
        if callable(getattr(type(port), name))
        for method in [getattr(port, name)]
    }


def properties(port: object) -> list[str]:
    """The names of the public attributes of a port that are no methods."""
    named = [name for name in public_names(type(port)) if not callable(getattr(type(port), name))]
    return sorted({*named, *(name for name in vars(port) if not name.startswith("_"))})


def _arguments(method: Callable[..., Any]) -> tuple[list[Any], dict[str, Any]]:
    """For the parameters that have no default."""
    positional, named = [], {}
    for parameter in inspect.signature(method).parameters.values():
        if parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = _VALUES[parameter.name]
        else:
            positional.append(_VALUES[parameter.name])
    return positional, named


def outcome(use: Callable[[], Any]) -> str:
    """What a use comes to: the name of the error that it raises, or the value that it has. Blocks are entered."""
    try:
        value = use()
        if hasattr(value, "__enter__"):
            with value:
                pass
    except Exception as exc:
        return type(exc).__name__
    return repr(value)
