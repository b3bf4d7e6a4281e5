"""Text that the system gives and that is not UTF-8, terminals that lack letters, values with what a file has around."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lptctl.processes import BOUND_S, LPTCTL, environment, running_daemon

pytest.importorskip("click")
pytest.importorskip("trio")
if sys.platform == "win32":  # where the system's text is UTF-16
    pytest.skip("bytes of a path", allow_module_level=True)

BAD = b"caf\xe9"
TOKEN = "a" * 43
CONFIG = """
[server]
listen = ["lpt+unix://{folder}/s", "lpt://127.0.0.1:0"]
[[token]]
name = "t"
sha256 = "{digest}"
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[bytes]:
    """A folder whose name is not UTF-8."""
    with tempfile.TemporaryDirectory() as name:
        path = os.fsencode(name) + b"/" + BAD
        os.mkdir(path)
        yield path


@pytest.fixture(scope="module")
def url(folder: bytes) -> Iterator[bytes]:
    """A daemon that listens in there."""
    listen = b"lpt+unix://" + folder + b"/s"
    with running_daemon(listen=os.fsdecode(listen)) as daemon:
        assert daemon.url.endswith("/caf%E9/s#LPT1")
        yield listen


def run(*arguments: bytes | str, url: bytes, **variables: bytes | str) -> subprocess.CompletedProcess[bytes]:
    """Lptctl, with arguments and variables as bytes."""
    given = {os.fsencode(name): os.fsencode(value) for name, value in {**environment(), **variables}.items()}
    command = [*LPTCTL, *arguments]
    return subprocess.run(command, env={**given, b"LPT_URL": url}, capture_output=True, timeout=BOUND_S, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        (b"status",),
        (b"ping", b"--count", b"1"),
        (b"queue",),
        (b"pause", b"--reason", BAD),
        (b"resume",),
        (b"revoke", b"--reason", BAD),
        (b"read",),
        (b"write", b"data", b"1"),
        (b"latency", b"--count", b"1"),
        (b"run", b"--", b"sh", b"-c", b'test "$1" = "$(printf "caf\\351")"', b"sh", BAD),
        (b"drain", b"--", b"sh", b"-c", b'test "$1" = "$(printf "caf\\351")"', b"sh", BAD),
        (b"cert", b"init", b"--directory", b"%FOLDER%/authority"),
        (b"latency", b"--count", b"1", b"--csv", b"%FOLDER%/" + BAD),
    ],
    ids=lambda arguments: b" ".join(arguments[:3]).decode(errors="replace"),
)
def test_what_is_not_utf8_works(arguments: tuple[bytes, ...], url: bytes, folder: bytes) -> None:
    done = run(*(each.replace(b"%FOLDER%", folder) for each in arguments), url=url)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        ((BAD,), 2),
        ((b"--" + BAD,), 2),
        ((b"--url", b"lpt://" + BAD, b"status"), 2),
        ((b"--url", b"lpts://127.0.0.1:1/" + BAD, b"status"), 3),
        ((b"--url", BAD, b"status"), 2),
        ((b"read", BAD), 2),
        ((b"write", b"data", BAD), 2),
        ((b"kick", BAD), 2),
        ((b"token", BAD), 2),
        ((b"cert", b"client", BAD), 1),
        ((b"cert", b"server", BAD), 1),
        ((b"run", b"--", BAD), 127),
        ((b"drain", b"--", BAD), 127),
        ((b"latency", b"--html", b"/nonexistent/" + BAD), 2),
    ],
    ids=lambda value: b" ".join(value).decode(errors="replace") if isinstance(value, tuple) else None,
)
def test_what_is_not_utf8_is_refused_in_words(arguments: tuple[bytes, ...], exit_code: int, url: bytes) -> None:
    done = run(*arguments, url=url)
    assert (done.returncode, done.stdout) == (exit_code, b"")
    assert b"Traceback" not in done.stderr
    assert rb"\udce9" in done.stderr or rb"127.0.0.1" in done.stderr
    assert done.stderr.decode("ascii")


def test_a_port_whose_name_is_not_utf8(url: bytes) -> None:
    done = run(b"status", url=url + b"#" + BAD)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"STATUS_NO_SUCH_DEVICE" in done.stderr


def test_a_program_whose_name_is_not_utf8(url: bytes, folder: bytes) -> None:
    """It goes by its name in the daemon's status."""
    program = folder + b"/" + BAD + b".py"
    source = "import sys\nfrom lpt_client import blocking\n"
    source += "with blocking.open_port(sys.argv[1]) as port, port.allocated(10):\n"
    source += "    print(port.status()['owner']['client'])\n"
    Path(os.fsdecode(program)).write_text(source, encoding="utf-8")
    done = subprocess.run([sys.executable, program, url], capture_output=True, timeout=BOUND_S, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(rb"caf\udce9.py[")


@pytest.mark.parametrize(
    ("encoding", "command"),
    [
        *(("ascii", each) for each in ("status", "queue", "latency --count 1", "--help", "run --help", "token Ω")),
        *(("latin-1", each) for each in ("status", "latency --count 1", "token Ω")),
    ],
)
def test_a_terminal_that_lacks_letters(encoding: str, command: str, url: bytes) -> None:
    done = run(*command.split(), url=url, PYTHONIOENCODING=encoding)
    assert b"UnicodeEncodeError" not in done.stderr
    assert done.returncode == 0


# The token


@pytest.fixture(scope="module")
def guarded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    """A daemon that wants a token."""
    folder = tmp_path_factory.mktemp("guarded")
    path = folder / "lptd.toml"
    path.write_text(CONFIG.format(folder=folder, digest=hashlib.sha256(TOKEN.encode()).hexdigest()), encoding="utf-8")
    with running_daemon("--config", str(path)) as daemon:
        assert daemon.process.stdout is not None
        yield daemon.process.stdout.readline().removeprefix("listening on ").strip().encode()


@pytest.mark.parametrize("form", ["{}", "{}\n", "{}\r\n", "\ufeff{}\r\n", " {} "])
def test_a_token_as_a_file_has_it(form: str, guarded_url: bytes) -> None:
    done = run(b"ping", b"--count", b"1", url=guarded_url, LPT_TOKEN=form.format(TOKEN))
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("token", [BAD, b"a\nb", b"\xff\xfea"])
def test_what_is_no_token(token: bytes, guarded_url: bytes) -> None:
    done = run(b"ping", url=guarded_url, LPT_TOKEN=token)
    assert done.returncode == 2
    assert done.stderr.startswith(b"lptctl: LPT_TOKEN is no token: ")
    assert b"caf" not in done.stderr  # a secret
