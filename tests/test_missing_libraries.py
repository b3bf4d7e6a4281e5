"""What needs a library that is not installed says in one line what to type, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lpt_service.protocol.url import Url
from tests.docs.daemon import running_daemon
from tests.docs.markdown import PROJECT

BIN = Path(sys.executable).parent
TIMEOUT_S = 50

# For the interpreter's start: of what HIDDEN names, nothing is found.
HIDE = """
import os, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["HIDDEN"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""

# A command line, and each library without which it cannot do its work. {url} is a daemon's, {config} a configuration.
NEEDS = {
    "lptd --version": "click msgpack",
    "lptd serve --simulate --listen lpt://127.0.0.1:0": "click msgpack pydantic trio",
    "lptd serve --config {config}": "pydantic trio",
    "lptd check-config {config}": "click msgpack pydantic",
    "lptd doctor": "click msgpack pydantic",
    "lptd demo": "click msgpack pydantic trio",
    "lptctl --help": "click",
    "lptctl --url {url} status": "click msgpack",
    "lptctl --url {url} queue": "msgpack",
    "lptctl --url {url} read data": "msgpack",
    "lptctl --url {url} pulse 1 --width-us 10": "msgpack",
    "lptctl --url {url} ping --count 1": "msgpack",
    "lptctl --url {url} revoke": "msgpack",
    "lptctl --url {url} kick 99": "msgpack",
    "lptctl --url {url} drain -- true": "msgpack",
    "lptctl --url {url} run -- true": "msgpack trio",
    "lptctl --url {url} listen --count 1": "msgpack trio",
    "lptctl --url {url} latency --count 1": "msgpack rich",
    "lptctl token x": "click",
    "lptctl cert init": "click cryptography",
}
CASES = [(command, library) for command, libraries in NEEDS.items() for library in libraries.split()]
EXTRA = {"lptd": "daemon", "lptctl": "cli"}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def url() -> Iterator[Url]:
    with running_daemon() as url:
        yield url


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command where a library is not installed."""
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    (tmp_path / "config.toml").write_text('[server]\nlisten = ["lpt://127.0.0.1:0"]\n')

    def run(command: list[str], hidden: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HIDDEN": hidden, "PYTHONWARNINGS": "error"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=TIMEOUT_S,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(("command", "library"), CASES)
def test_a_program_says_what_to_type(command: str, library: str, run: Run, url: Url, tmp_path: Path) -> None:
    program, *arguments = command.format(url=url, config=tmp_path / "config.toml").split()
    result = run([str(BIN / program), *arguments], library)
    extra = "cert" if library == "cryptography" else EXTRA[program]
    said = f'{program}: {library} is not installed: pip install "lpt-service[{extra}]"\n'
    assert (result.returncode, result.stderr) == (1, said)
    assert result.stdout == ""


@pytest.mark.parametrize(("module", "program"), [("lpt_service", "lptd"), ("lptctl", "lptctl")])
@pytest.mark.parametrize("hidden", ["click", "click msgpack trio pydantic rich cryptography"])
def test_so_does_a_program_that_is_called_as_a_module(module: str, program: str, hidden: str, run: Run) -> None:
    result = run([sys.executable, "-m", module, "--help"], hidden)
    assert result.returncode == 1
    assert re.fullmatch(rf'{program}: \w+ is not installed: pip install "lpt-service\[\w+\]"\n', result.stderr)


def test_what_does_not_need_it_works_without(run: Run, url: Url) -> None:
    everything = "trio pydantic rich cryptography"
    for command in ("lptctl --help", f"lptctl --url {url} status", f"lptctl --url {url} ping --count 1"):
        program, *arguments = command.split()
        result = run([str(BIN / program), *arguments], everything)
        assert (result.returncode, result.stderr) == (0, "")


def test_a_mistake_of_our_own_is_no_missing_library(run: Run) -> None:
    result = run([str(BIN / "lptctl"), "--help"], "lptctl.common")
    assert result.returncode == 0  # only whole libraries are hidden
    code = "import sys; sys.modules['lptctl.common'] = None; from lptctl.__main__ import main; main()"
    result = run([sys.executable, "-c", code], "")
    assert "Traceback" in result.stderr


def test_every_library_is_among_them() -> None:
    """Whatever our programs import that is neither ours nor Python's."""
    imported = re.compile(r"^\s*(?:from|import) (\w+)", re.MULTILINE)
    folders = (PROJECT / "lpt_service", PROJECT / "clients/lptctl", PROJECT / "clients/lpt_client")
    texts = (path.read_text() for folder in folders for path in folder.rglob("*.py"))
    code = (re.sub(r'""".*?"""', "", text, flags=re.DOTALL) for text in texts)
    found = {name for text in code for name in imported.findall(text)}
    assert found - {"lpt_service", "lpt_client", "lptctl"} - sys.stdlib_module_names == {name for _, name in CASES}
