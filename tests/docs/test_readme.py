"""README.md: its examples do what they say, against a real daemon with a simulated port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lpt_service.config import ConfigError, parse
from lpt_service.protocol.messages import DEFAULT_UNIX_SOCKET
from lpt_service.protocol.url import Url
from tests.docs.daemon import running_daemon
from tests.docs.markdown import PROJECT, Block, blocks, read

PAGE = read(PROJECT / "README.md")
ADDRESS = "lpt://127.0.0.1:5378"
TIMEOUT_S = 50


def run(command: list[str], url: Url, folder: Path) -> list[str]:
    """Run a command of the page with the daemon's address in place of the page's; its lines of output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "error"}
    command = [part.replace(ADDRESS, str(url.with_port_name(None))) for part in command]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def example(language: str, word: str) -> Block:
    (found,) = (block for block in blocks(PAGE, language) if word in block.text)
    return found


def code_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_python_with_trio(daemon_url: Url, tmp_path: Path) -> None:
    lines = run([sys.executable, "-c", example("python", "trio.run").text], daemon_url, tmp_path)
    assert lines[-1] == "received 1, lost 0"
    assert any(line.startswith("Interrupt(seq=") for line in lines)


def test_python_without_trio(daemon_url: Url, tmp_path: Path) -> None:
    lines = run([sys.executable, "-c", example("python", "blocking").text], daemon_url, tmp_path)
    widths = [int(re.fullmatch(r"trigger \d: (\d+) µs", line)[1]) for line in lines[:3]]  # type: ignore[index]
    assert all(width >= 5000 for width in widths)
    assert lines[3].startswith("{'grants': ")


def test_first_screen() -> None:
    """What it is, how to get it, a program, the shell, for whom: in this order, before any other heading."""
    first, _, later = PAGE.partition("\n## ")
    sentence = first.split("\n\n")[1]
    assert sentence.endswith(".")
    assert sentence.count(". ") == 0
    order = ["    pip install ", "    lptd serve ", "```python", "```sh", "**For you if**", "**Not for you if**"]
    places = [first.index(part) for part in order]
    assert places == sorted(places)
    assert len(first.splitlines()) <= 64
    assert later.index("## Use it") < later.index("## State of the project")


def test_first_screen_in_the_shell(tmp_path: Path) -> None:
    """As it stands, but for the interrupt that the listener waits for."""
    export, pulse, listen = example("sh", "LPT_URL=lpt://127.0.0.1:5378/LPT1\nlptctl pulse").text.splitlines()
    assert listen.startswith("lptctl listen ")
    listen = listen.replace("listen", "listen --count 1", 1)
    wait = "until lptctl status --json | grep '\"registered\": 1' > /dev/null; do :; done"
    script = "\n".join(
        [export, pulse, listen.replace("#", "2> told & #", 1), wait, "lptctl pulse 0x08 --width-us 1000", "wait"]
    )
    with running_daemon() as url:
        lines = run(["bash", "-euc", script], url, tmp_path)
    assert any("  interrupt 0  " in line for line in lines)
    assert "received 1, lost 0" in (tmp_path / "told").read_text(encoding="utf-8")


def test_shell(tmp_path: Path) -> None:
    experiment = tmp_path / "experiment.sh"
    experiment.write_text('#!/bin/sh\necho "held by grant $LPT_GRANT"\n', encoding="utf-8")
    experiment.chmod(0o755)
    script = example("sh", "lptctl ping").text
    # For the listener to be there; on a busy machine, look whether it is.
    before, sleep, after = script.partition("\nsleep 1\n")
    assert sleep
    script = f"{before}\nuntil lptctl status --json | grep '\"registered\": 1' > /dev/null; do :; done\n{after}"
    with running_daemon() as url:
        lines = run(["bash", "-euc", script], url, tmp_path)
    text = "\n".join(lines)
    assert "LPT1" in text
    assert "round trip" in text
    assert "0x" in text
    assert '"event": "interrupt"' in text
    assert '"received": 1, "lost": 0' in text
    assert re.fullmatch(r"held by grant \d+", lines[-1])


def test_sharing_it_on_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set-up as it stands there, with this machine's addresses and paths."""
    pytest.importorskip("cryptography")
    nowhere = Url.parse("lpt://127.0.0.1:1")
    set_up = example("sh", "cert init").text.replace("192.0.2.7", "127.0.0.1")
    printed = run(["bash", "-euc", set_up], nowhere, tmp_path)
    (token,) = (line.rpartition("=")[2] for line in printed if "export LPT_TOKEN=" in line)
    sha256_line = next(line.strip() for line in printed if line.lstrip().startswith("sha256 = "))
    files = tmp_path / "lpt-ca/lab-pc.example.org"
    config = example("toml", "[[role]]").text
    assert set(tomllib.loads(config)) == {"server", "port", "token", "role"}
    for there, here in (
        ("lpt+unix:///run/lptd", f"lpt+unix://{tmp_path}"),
        ("0.0.0.0:5379", "127.0.0.1:0"),
        ("/dev/parport0", "simulated"),
        (f'sha256 = "{"0" * 64}"', sha256_line),
    ):
        assert there in config
        config = config.replace(there, here)
    path = tmp_path / "config.toml"
    path.write_text(f'{config}[tls]\ncertificate = "{files}.pem"\nkey = "{files}.key"\n', encoding="utf-8")
    (tmp_path / "ca.pem").write_bytes((tmp_path / "lpt-ca/ca.pem").read_bytes())
    with running_daemon(config=path, line_number=1) as url:
        client = example("sh", "LPT_CA").text
        client = client.replace("lpts://lab-pc.example.org:5379", str(url.with_port_name(None)))
        (width,) = run(["bash", "-euc", client.replace("the-token", token)], nowhere, tmp_path)
        assert width.endswith(" us")
        monkeypatch.delenv("LPT_TOKEN", raising=False)
        for wrong, why in (("an-other-token", "token: "), ("", "role: anonymous has none")):
            with pytest.raises(AssertionError, match=f"the daemon refused: STATUS_ACCESS_DENIED: {why}"):
                run(["bash", "-euc", client.replace("the-token", wrong)], nowhere, tmp_path)


def test_sharing_it_beyond_this_machine_wants_what_the_page_wants() -> None:
    """The page's listener is refused without the token and the role, and taken with them."""
    values = tomllib.loads(example("toml", "[[role]]").text)
    parse(values)
    with pytest.raises(ConfigError, match="could use the ports"):
        parse({name: values[name] for name in ("server", "port")})


def test_about_ten_lines_each() -> None:
    for block in (*blocks(PAGE, "python"), *blocks(PAGE, "sh")):
        assert len(code_lines(block.text)) <= 14


def test_commands_exist() -> None:
    """What is named as a command of lptd, lptctl or make is one."""
    prose = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    commands = [*re.findall(r"`([^`\n]+)`", prose), *re.findall(r"^    (.+)$", prose, re.MULTILINE)]
    commands += [line for block in blocks(PAGE, "sh") for line in block.text.splitlines()]

    def named(program: str) -> set[str]:
        return {found[1] for each in commands if (found := re.match(rf"{program} ([a-z][a-z-]*)\b", each))}

    targets = set(re.findall(r"^([a-z-]+):", read(PROJECT / "Makefile"), re.MULTILINE))
    assert {"demo", "check"} <= named("make") <= targets
    for program, least in (("lptd", {"serve"}), ("lptctl", {"run", "listen"})):
        command = [str(Path(sys.executable).parent / program), "--help"]
        help_text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert least <= named(program) <= set(re.findall(r"^  ([a-z-]+) ", help_text, re.MULTILINE))


def test_extras_are_those_of_the_project() -> None:
    project = tomllib.loads(read(PROJECT / "pyproject.toml"))["project"]
    assert set(re.findall(r"pip install '\.\[(\w+)]'", PAGE)) == set(project["optional-dependencies"])
    assert "Python 3.10 or newer" in PAGE
    assert project["requires-python"] == ">=3.10"


def test_the_default_socket() -> None:
    assert f"`{DEFAULT_UNIX_SOCKET}`" in PAGE


@pytest.mark.parametrize("word", ["a Debian package", "no package on PyPI", "no encryption", "What is not there: "])
def test_it_says_what_is_not_there(word: str) -> None:
    assert word in " ".join(PAGE.split())
