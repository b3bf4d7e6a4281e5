"""docs/architecture.md names what exists: every module, functions by their names, bounds by their values."""

from __future__ import annotations

import importlib
import inspect
import operator
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lpt_client
import lpt_service
import lptctl
from lpt_service import config
from tests.docs.markdown import DOCS, PROJECT, blocks, read, table, tables

PAGE = read(DOCS / "architecture.md")
FOLDERS = ("lpt_service", "clients/lpt_client", "clients/lptctl")
SECTIONS: dict[str, Any] = {
    "[server]": config.ServerConfig,
    "[[port]]": config.PortConfig,
    "[limits]": config.LimitsConfig,
    "[audit]": config.AuditConfig,
}
UNITS = {"KiB": 1024, "MiB": 1024**2, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "": 1}


def modules() -> list[ModuleType]:
    packages = (lpt_service, lpt_client, lptctl)
    infos = (info for each in packages for info in pkgutil.walk_packages(each.__path__, f"{each.__name__}."))
    return [importlib.import_module(info.name) for info in infos if not info.name.endswith("__main__")]


# Modules


def test_every_module_is_named_and_exists() -> None:
    named = {
        f"{each.heading}{row[0]}"
        for each in tables(PAGE)
        if each.header == ("Module", "What it is")
        for row in each.rows
    }
    existing = {path.relative_to(PROJECT).as_posix() for folder in FOLDERS for path in (PROJECT / folder).rglob("*.py")}
    assert named == existing


def test_the_picture_names_the_floors_in_order() -> None:
    (picture,) = blocks(PAGE, "text")
    floors = re.findall(r"lpt_service/([\w.]+?)(?:\.py|/) ", picture.text)
    assert floors == ["cli", "server", "core", "port", "protocol"]
    layers = re.search(r"^layers = \[(.*?)]", read(PROJECT / "pyproject.toml"), re.MULTILINE | re.DOTALL)
    assert layers is not None
    drawn = [name for name in re.findall(r"\w+", layers[1]) if name in floors]
    assert drawn == floors


def test_paths_in_the_text_exist() -> None:
    named = set(re.findall(r"`((?:[\w-]+/)*[\w-]+(?:\.py|\.toml|/))`", PAGE))
    assert named
    for path in named:
        places = (PROJECT, PROJECT / "lpt_service", PROJECT / "clients")
        inside = [Path(each.heading) for each in tables(PAGE) if each.header == ("Module", "What it is")]
        assert any((place / path).exists() for place in (*places, *(PROJECT / folder for folder in inside))), path


# Names


def test_methods_exist() -> None:
    """What stands there as `Class.method` is a class of the project with that attribute."""
    classes = [item for module in modules() for item in vars(module).values() if inspect.isclass(item)]
    named = re.findall(r"`([A-Z]\w+)\.(\w+)`", PAGE)
    assert len(named) > 30
    for owner, member in named:
        bases = [base for each in classes if each.__name__ == owner for base in each.__mro__]
        assert any(member in vars(base) or member in inspect.get_annotations(base) for base in bases), (
            f"{owner}.{member}"
        )


@pytest.mark.parametrize(
    "name", ["CONTROL_CODES", "HANDLERS", "METHODS", "parse_request", "Conversation", "InterruptStream"]
)
def test_other_names_exist(name: str) -> None:
    assert f"`{name}`" in PAGE
    assert any(hasattr(module, name) for module in modules())


# Bounds


def bound_of(name: str) -> float:
    """The value that the code has for a name of the table, in bytes, seconds or pieces."""
    section, _, key = name.rpartition(" ")
    if section:
        return float(SECTIONS[section].model_fields[key].default)
    parts = name.split(".")
    if parts[0] not in ("lpt_client", "lptctl"):
        parts.insert(0, "lpt_service")
    for length in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        value = operator.attrgetter(".".join(parts[length:]))(module)
        return float(value) / (1e9 if name.endswith("_NS") else 1e6 if name.endswith("_US") else 1)
    raise AssertionError(name)


@pytest.mark.parametrize("row", table(PAGE, heading="Bounds").rows, ids=lambda row: str(row[0]))
def test_bounds(row: tuple[str, ...]) -> None:
    number, _, unit = row[1].replace(",", "").partition(" ")
    assert float(number) * UNITS[unit] == pytest.approx(bound_of(row[0]))


def test_every_setting_that_bounds_is_in_the_table() -> None:
    named = {row[0].split(" ")[1] for row in table(PAGE, heading="Bounds").rows if row[0].startswith("[")}
    assert set(config.LimitsConfig.model_fields) <= named


def test_constants_that_bound_are_in_the_table() -> None:
    """A module's constant with a unit or a plural that says "so many at the most" is to be told of."""
    named = {row[0].split(".")[-1] for row in table(PAGE, heading="Bounds").rows}
    pattern = re.compile(r"_?(MAX_\w+|\w+_MAX(_\w+)?|\w+_TIMEOUT_S|\w+_A_TURN|\w+_A_PUMP|BACKLOG)")
    exempt = {
        "U32_MAX", "U64_MAX", "_U64_MAX", "INTERRUPT_COUNT_MAX", "_GRANT_MAX",  # ranges of numbers
        "_EVENTS_A_TURN",  # of an iteration over what is there already
    }  # fmt: skip
    found = {name for module in modules() for name in vars(module) if pattern.fullmatch(name)}
    assert found - exempt <= named


# House rules, and what to edit


def test_house_rules_are_numbered() -> None:
    section = PAGE.split("\n## House rules\n")[1].split("\n## ")[0]
    assert re.findall(r"^(\d+)\. \*\*", section, re.MULTILINE) == [str(number) for number in range(1, 13)]


def test_a_change_needs_three_files_at_the_most() -> None:
    for row in table(PAGE, heading="To change X, edit Y").rows:
        assert len([path for path in re.findall(r"[\w/]+\.py\b", row[1]) if "lpt_client" not in path]) <= 3, row
