"""A table in the wrong brackets, or a value that should be an array, is told with what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt_service.config import Config, ConfigError, load

ARRAYS = ("port", "token", "role")
ONCE = ("server", "limits", "tls", "audit")


def problems(text: str, folder: Path) -> list[str]:
    path = folder / "lptd.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert all(problem.startswith(f"{path}: ") and "\n" not in problem for problem in caught.value.problems)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


def test_these_are_all_tables() -> None:
    assert {*ARRAYS, *ONCE} == set(Config.model_fields)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(
    "text",
    [
        "[{}]\n", "[ {} ]  # one\nx = 1\n", "{} = 5\n", "{} = {{x = 1}}\n", "[{}.LPT1]\nx = 1\n", '{} = ""\n',
        '["{}"]\n', "[{0}]\nx = 1\n[{0}]\nx = 2\n", "[[{0}]]\nx = 1\n[{0}]\nx = 2\n", "[{0}]\nx = 1\n[[{0}]]\nx = 2\n",
    ],
)  # fmt: skip
def test_one_of_several_tables_in_single_brackets(name: str, text: str, tmp_path: Path) -> None:
    assert problems(text.format(name), tmp_path) == [f"{name}: write [[{name}]] above each such table, not [{name}]"]


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize(
    "text",
    ["[[{}]]\n", "[[{0}]]\nx = 1\n[[{0}]]\n", "{} = 5\n", "{} = []\n", "[[{0}]]\n[{0}.x]\n", "[{0}]\n[[{0}]]\n"],
)
def test_the_one_table_in_double_brackets(name: str, text: str, tmp_path: Path) -> None:
    assert problems(text.format(name), tmp_path) == [f"{name}: write [{name}] above it; there is one such table"]


@pytest.mark.parametrize("name", [*ONCE, "server.listen"])
def test_a_table_that_is_there_twice(name: str, tmp_path: Path) -> None:
    """It may be long, with the other one out of sight."""
    said = "not TOML: [server] appears twice (at line 3, column 8)".replace("8", str(len(name) + 2))
    assert problems(f"[{name}]\n\n[{name}]\n", tmp_path) == [said.replace("server", name)]


@pytest.mark.parametrize("text", ["[ports]\n", "[[Port]]\n", 'device = "simulated"\n', "[lptd.server]\n"])
def test_what_is_in_no_table_of_ours_is_told_which_there_are(text: str, tmp_path: Path) -> None:
    (said,) = problems(text, tmp_path)
    tables = "[server], [[port]], [limits], [tls], [audit], [[token]], [[role]]"
    assert said.endswith(f": unknown key; the tables are {tables}")


def test_an_item_that_is_no_table(tmp_path: Path) -> None:
    said = "port[0]: must be a table: write [[port]] above it (got 'LPT1')"
    assert problems('port = ["LPT1"]\n', tmp_path) == [said]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[server]\nlisten = "lpt://127.0.0.1"', "server.listen: must be an array: write listen = ['lpt://127.0.0.1']"),
        ('[server.listen]\nurl = "lpt://127.0.0.1"', "server.listen: must be an array: write listen = [{url = …}]"),
        ("[server]\nlisten = 5", "server.listen: must be an array: write listen = [5]"),
        ('[[role]]\nrole = "use"\nwho = "anyone"', "role[0].who: must be an array: write who = ['anyone']"),
        (
            '[[role]]\nrole = "use"\nwho = ["anyone"]\nports = "LPT1"',
            "role[0].ports: must be an array: write ports = ['LPT1']",
        ),
        (
            '[server]\nlisten = [{url = "lpt://127.0.0.1", allow_from = "10.0.0.0/8"}]',
            "server.listen[0].allow_from: must be an array: write allow_from = ['10.0.0.0/8']",
        ),
        ("port = []", "port: array should have at least 1 item, not 0"),
        ("[server]\nlisten = []", "server.listen: array should have at least 1 item, not 0"),
    ],
)
def test_one_value_in_place_of_an_array(text: str, said: str, tmp_path: Path) -> None:
    assert problems(text, tmp_path) == [said]
