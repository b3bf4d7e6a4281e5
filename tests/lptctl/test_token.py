"""lptctl token: one that a daemon takes, shown once, and hashed as the daemon does it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.lptctl.processes import BOUND_S, Lptctl, read_terminal_until, running_daemon, started

pytest.importorskip("click")
tomllib = pytest.importorskip("tomllib")


class Input(io.TextIOWrapper):
    """Standard input with these bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


def tables_of(text: str) -> tuple[str, str]:
    """What is shown for the configuration: the [[token]] table, and the [[role]] table."""
    found = re.findall(r"^    (\[\[.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    token, role = (re.sub("^ {4}", "", each, flags=re.MULTILINE) for each in found)
    return token, role


@pytest.mark.parametrize("name", ["stimulus PC", 'größe "大" \\ 🎉'])
def test_a_daemon_that_is_given_what_is_printed_takes_the_token(
    lptctl: Lptctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    result = lptctl("token", name)
    assert (result.code, result.err) == (0, "")
    (token,) = re.findall(r"^    export LPT_TOKEN=([\w-]{43})$", result.out, re.MULTILINE)
    token_table, role_table = tables_of(result.out)
    assert tomllib.loads(token_table)["token"] == [{"name": name, "sha256": hashlib.sha256(token.encode()).hexdigest()}]
    assert tomllib.loads(role_table)["role"] == [{"who": [f"token:{name}"], "role": "use"}]
    assert result.out.count(token) == 1
    config = tmp_path / "config.toml"
    config.write_text(f'[server]\nlisten = ["lpt://127.0.0.1:0"]\n{token_table}\n', encoding="utf-8")
    with running_daemon("--config", str(config)) as daemon:
        refused = lptctl.fails("read", url=daemon.url)
        assert refused.code == 1
        assert "put the token that this daemon wants into the environment variable LPT_TOKEN" in refused.err
        monkeypatch.setenv("LPT_TOKEN", token)
        assert lptctl("read").code == 0


def test_as_json_and_never_the_same(lptctl: Lptctl) -> None:
    made = [json.loads(lptctl("token", "--json", *names).out) for names in (("a",), ("a",), ())]
    assert [each["name"] for each in made] == ["a", "a", "client"]
    assert len({each["token"] for each in made}) == 3
    assert all(each["sha256"] == hashlib.sha256(each["token"].encode()).hexdigest() for each in made)


@pytest.mark.parametrize(
    "given", [b"the token", b"the token\n", b"the token\r\n", b"\xef\xbb\xbfthe token\r\n", b" the token "]
)
def test_the_hash_of_a_token_from_standard_input(lptctl: Lptctl, monkeypatch: pytest.MonkeyPatch, given: bytes) -> None:
    digest = hashlib.sha256(b"the token").hexdigest()
    monkeypatch.setattr(sys, "stdin", Input(given))
    assert lptctl("token", "--hash") == (0, f'sha256 = "{digest}"\n', "")
    monkeypatch.setattr(sys, "stdin", Input(given))
    assert json.loads(lptctl("token", "--hash", "--json").out) == {"sha256": digest}


@pytest.mark.parametrize(
    "given", [b"", b"\n", b"two\nlines\n", b"\xff\xfe", "the token".encode("utf-16-le"), b"caf\xe9"]
)
def test_what_is_no_token_is_2(lptctl: Lptctl, monkeypatch: pytest.MonkeyPatch, given: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", Input(given))
    assert lptctl.fails("token", "--hash").code == 2


def test_a_token_that_is_typed_is_not_shown() -> None:
    terminal, inner = os.openpty()
    with started("token", "--hash", url="", on_terminal=inner) as process:
        os.close(inner)
        shown = read_terminal_until(terminal, "Token: ")
        os.write(terminal, b"the token\n")
        shown += read_terminal_until(terminal, "sha256 = ")
        shown += read_terminal_until(terminal, '"\r\n')
        assert process.wait(BOUND_S) == 0
    os.close(terminal)
    assert "the token" not in shown
    assert hashlib.sha256(b"the token").hexdigest() in shown


@pytest.mark.parametrize("name", ["", "*", "a\nb", "\udcff", "x" * 65])
def test_what_is_no_name_is_2(lptctl: Lptctl, name: str) -> None:
    assert lptctl.fails("token", name).code == 2


def test_a_name_is_not_for_a_hash(lptctl: Lptctl) -> None:
    assert lptctl("token", "--hash", "name").code == 2
