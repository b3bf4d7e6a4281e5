"""Arguments, checked before anything is sent, for both front ends.

What is of another kind is a TypeError, what is out of range a ValueError; both name the argument, what it was and what
it takes. Whole numbers are what `operator.index` makes one of (int, IntEnum, numpy's integers), and never a float: a
trigger code of 3.7 is a mistake. Seconds are any real number. Neither is ever read from a text.
"""

from __future__ import annotations

import inspect
import math
import operator
import os
from typing import Any, Final, TypeVar

from lpt_service.protocol.frame_scanner import Limits
from lpt_service.protocol.url import Url

T = TypeVar("T")

U64_MAX: Final = 2**64 - 1
_DAEMON: Final = Limits()  # as in the codec, which needs msgpack: `import lpt_client` does not
# What the wire's timeout_ms holds: 49 days and 17 hours. A longer time-out ends then.
TIMEOUT_MAX_S: Final = (2**32 - 1) / 1000
_SECONDS: Final = "seconds from 0 on"
_PATIENCE: Final = f"{_SECONDS}, or None to wait without end"
# As much as a frame to the daemon has room for, and then some.
INPUT_MAX_BYTES: Final = _DAEMON.max_frame_bytes - 1024


def whole(value: Any, name: str, least: int, most: int, unit: str = "a whole number") -> int:
    """`value` as an int from `least` to `most`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise wrong_type(value, name, f"{unit} from {least:,} to {most:,}") from None
    if not least <= number <= most:
        raise ValueError(f"{name} is {_shown(value)}, it must be {unit} from {least:,} to {most:,}")
    return number


def seconds(value: Any, name: str) -> float:
    """A time in seconds; inf is one, too."""
    number = _real(value, name, _SECONDS)
    if number >= 0:
        return number
    raise ValueError(f"{name} is {_shown(value)}, it must be {_SECONDS}")


def patience(value: Any, name: str) -> float:
    """A time-out in seconds, or without end: None and inf, for which this gives inf."""
    if value is None:
        return math.inf
    number = _real(value, name, _PATIENCE)
    if number >= 0:
        return number
    raise ValueError(f"{name} is {_shown(value)}, it must be {_PATIENCE}")


def _real(value: Any, name: str, takes: str) -> float:
    is_number = hasattr(value, "__float__") or hasattr(value, "__index__")
    if not is_number or isinstance(value, (bool, str, bytes)):  # numpy's texts have a __float__
        raise wrong_type(value, name, takes)
    try:
        return float(value)
    except OverflowError:  # an int beyond what a float holds
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise wrong_type(value, name, takes) from None


def flag(value: Any, name: str) -> bool:
    """True or False, and nothing that merely has a truth value: the text "off" would be True."""
    if isinstance(value, bool):
        return value
    raise wrong_type(value, name, "True or False")


def text(value: Any, name: str) -> str:
    """Text, no longer than the daemon accepts."""
    if not isinstance(value, str):
        raise wrong_type(value, name, "a text (str)")
    size = len(value.encode(errors="backslashreplace"))  # as the codec sends what is not UTF-8
    if size > _DAEMON.max_string_bytes:
        raise ValueError(f"{name} has {size:,} bytes in UTF-8, it must have at most {_DAEMON.max_string_bytes:,}")
    return value


def data(value: Any, name: str) -> bytes:
    """Bytes for the daemon."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise wrong_type(value, name, "bytes")
    given = bytes(value)
    if len(given) > INPUT_MAX_BYTES:
        raise ValueError(f"{name} has {len(given):,} bytes, it must have at most {INPUT_MAX_BYTES:,}")
    return given


def function(value: T, name: str, *, is_needed: bool = False) -> T:
    """A plain function, or None: nobody would await the coroutine that an async one gives."""
    if inspect.iscoroutinefunction(value):
        raise TypeError(f"{name} is an async function, it must be a plain one (which may set an event for a task)")
    if not callable(value) and (is_needed or value is not None):
        raise wrong_type(value, name, "a function")
    return value


def opening(
    url: Any, *, client: Any, token: Any, tls: Any, reconnect: Any, resume: Any, open_by: Any, open_by_name: str
) -> Url:
    """The arguments that both `open_port` have in common. Returns the address; UrlError for text that is none."""
    parsed = _address(url)
    for name, value in {"client": client, "token": token}.items():
        if value is not None:
            text(value, name)
    flag(reconnect, "reconnect")
    flag(resume, "resume")
    if open_by is not None and not callable(open_by):
        raise wrong_type(open_by, open_by_name, "a function")
    _check_tls(tls)
    return parsed


def _address(value: Any) -> Url:
    """The address of a daemon. Raises UrlError for text that is none."""
    if isinstance(value, Url):
        return value
    if isinstance(value, str):
        return Url.parse(value)
    takes = 'an address such as "lpt://lab-pc:5378/LPT1"'
    if value is None:
        takes += " (is a variable unset? leave the address out for this computer's daemon)"
    raise wrong_type(value, "url", takes)


def _check_tls(value: Any) -> None:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):  # TlsOptions, whose module needs this one
        for name, path in value._asdict().items():
            if path is not None and not isinstance(path, (str, os.PathLike)):
                raise wrong_type(path, f"tls.{name}", "the path of a file")
    elif value is not None and not hasattr(value, "wrap_bio"):
        raise wrong_type(value, "tls", "TlsOptions(ca=…), an ssl.SSLContext, or None")


def wrong_type(value: object, name: str, takes: str) -> TypeError:
    """The error for a value of another kind than `takes` says."""
    return TypeError(f"{name} is {_shown(value)}{_kind(value)}, it must be {takes}")


def _kind(value: object) -> str:
    return "" if value is None else f" ({type(value).__name__})"


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except Exception:  # an int of more digits than Python shows, or whatever a class of the program's raises
        return f"a {type(value).__name__}"
    return shown if len(shown) <= 60 else shown[:57] + "..."
