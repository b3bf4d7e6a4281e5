"""What is wrong with a configuration, in TOML's terms, and what to write instead.

`tables` says of each table of the configuration how its heading is written: `[server]`, or `[[port]]` where there may
be several.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

_HEADING = re.compile(r"^[ \t]*(\[\[?)[ \t]*['\"]?(\w+)['\"]?[ \t]*\]", re.MULTILINE)
_TWICE = re.compile(r"Cannot declare \((.+?),?\) twice")


def no_toml(text: str, error: Exception, tables: Mapping[str, str]) -> str:
    """Why a text is not TOML; `error` says so in the parser's terms."""
    for opening, table in _HEADING.findall(text):
        if table in tables and tables[table].startswith("[[") != (opening == "[["):
            return _brackets(table, tables)
    said = _TWICE.sub(
        lambda found: f"[{re.sub('[ ,]+', '.', found[1]).replace(chr(39), '')}] appears twice", str(error)
    )
    return f"not TOML: {said}"


def explain(error: ValidationError, tables: Mapping[str, str]) -> Iterator[str]:
    """A line for each thing that is wrong with the values."""
    errors = error.errors(include_url=False)
    places = [each["loc"] for each in errors]
    return (_explain(each, tables) for each in errors if not _is_consequence(each, places))


def _is_consequence(error: Any, places: list[tuple[int | str, ...]]) -> bool:
    """Whether an array is called too short only because an item of it is wrong."""
    at = error["loc"]
    return error["type"] == "too_short" and any(len(place) > len(at) and place[: len(at)] == at for place in places)


def _explain(error: Any, tables: Mapping[str, str]) -> str:
    path = ""
    for part in error["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    if error["type"] == "extra_forbidden":
        known = f"; the tables are {', '.join(tables.values())}" if len(error["loc"]) == 1 else ""
        return f"{path}: unknown key{known}"
    given = error["input"]
    if error["type"] in ("tuple_type", "model_type"):
        return _explain_shape(error["loc"], path, given, tables)
    message = str(error["msg"])
    if error["type"] == "value_error":  # our own words
        message = message.removeprefix("Value error, ")
    else:
        message = message[:1].lower() + message[1:].replace(" after validation,", ",")
        message = message.replace("tuple should", "array should")
    if not path:
        return message
    shown = "" if isinstance(given, (dict, tuple)) or error["type"] == "missing" else f" (got {given!r:.80})"
    return f"{path}: {message}{shown}"


def _explain_shape(place: tuple[int | str, ...], path: str, given: Any, tables: Mapping[str, str]) -> str:
    """What to write where something else than a table or an array stands."""
    table, *keys = place
    if not keys:
        return _brackets(str(table), tables)
    if isinstance(keys[-1], int):
        return f"{path}: must be a table: write {tables[str(table)]} above it (got {given!r:.80})"
    shown = f"{{{next(iter(given), '')} = …}}" if isinstance(given, dict) else f"{given!r:.80}"
    return f"{path}: must be an array: write {keys[-1]} = [{shown}]"


def _brackets(table: str, tables: Mapping[str, str]) -> str:
    heading = tables[table]
    how = f"each such table, not [{table}]" if heading.startswith("[[") else "it; there is one such table"
    return f"{table}: write {heading} above {how}"
