"""Libraries that only some programs need: which one is missing, and what to type."""

from __future__ import annotations

import sys
from typing import Final

_OURS: Final = frozenset(("lpt_service", "lpt_client", "lptctl"))


def missing_library(error: ImportError, extra: str = "") -> str | None:
    """Which library cannot be had, and what to type about it; None if `error` is not about a library.

    Args:
        error: what an import raised.
        extra: the extra of this project that brings what is needed ("" if it is needed always).
    """
    name = (error.name or "").partition(".")[0]
    if not name or name in _OURS or name in sys.stdlib_module_names:
        return None
    if error.name != name or not isinstance(error, ModuleNotFoundError):  # a part of it, or one that is too old
        return f"{name} cannot be used ({error}): pip install --force-reinstall --upgrade {name}"
    package = f"lpt-service[{extra}]" if extra else "lpt-service"
    return f'{name} is not installed: pip install "{package}"'
