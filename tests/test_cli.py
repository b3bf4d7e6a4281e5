"""lptd, the command: one clear line for whatever goes wrong, and exit codes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lpt_service import __version__, cli

PROJECT = Path(__file__).parent.parent


def invoke(*arguments: str) -> Result:
    """The command line in this process, for what does not serve."""
    return CliRunner().invoke(cli.main, arguments)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as a process."""
    return subprocess.run(
        [sys.executable, "-m", "lpt_service", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def check_one_line(result: subprocess.CompletedProcess[str], said: str, exit_code: int) -> None:
    """One clear line on standard error, nothing on standard output, no traceback."""
    assert result.stderr.startswith("lptd: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert result.returncode == exit_code


# Help


def test_help_says_how_to_begin() -> None:
    for arguments in (("--help",), ("-h",), ()):
        result = invoke(*arguments)
        for said in ("lptd demo", "lptd serve --simulate", "check-config", "Exit codes: 0 stopped in order"):
            assert said in result.output
    assert invoke("--help").exit_code == 0


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("serve", ["--config", "--simulate", "--listen", "--insecure", "--pulse-hz", "--log-level", "SIGHUP"]),
        ("check-config", ["FILE", "--config", "Exit code"]),
        ("demo", ["--plain", "Exit"]),
    ],
)
def test_help_of_each_command(command: str, options: list[str]) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    for option in options:
        assert option in result.output


def test_version() -> None:
    assert invoke("--version").output == f"lptd, version {__version__}\n"


def test_the_installed_command_is_this_one() -> None:
    lptd = Path(sys.executable).parent / "lptd"
    if not lptd.exists():
        pytest.skip("not installed beside this Python")
    assert subprocess.run([lptd, "--version"], capture_output=True, text=True, check=True).stdout.startswith("lptd, ")


# Wrong usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--simulate", "--config", "x.toml"], "--simulate and --config exclude each other"),
        (["serve", "--listen", "lpt://127.0.0.1:0"], "--listen, --insecure and --pulse-hz go with --simulate"),
        (["serve", "--pulse-hz", "5"], "--listen, --insecure and --pulse-hz go with --simulate"),
        (["serve", "--insecure"], "--listen, --insecure and --pulse-hz go with --simulate"),
        (["serve", "--config", "x.toml", "--insecure"], "--listen, --insecure and --pulse-hz go with --simulate"),
        (["serve", "--simulate", "--pulse-hz", "many"], "is not a valid float"),
        (["serve", "--log-level", "loud"], "is not one of"),
        (["serve", "--nonsense"], "No such option"),
        (["sing"], "No such command 'sing'"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    result = invoke(*arguments)
    assert said in result.output
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "http://127.0.0.1:0"], "server.listen[0]: 'http://127.0.0.1:0': unknown scheme 'http'; expected"),
        (["--listen", "127.0.0.1:5378"], "server.listen[0]: "),
        (["--listen", "lpt://0.0.0.0:0"], "server.listen[0]: whoever reaches lpt://0.0.0.0:0 from another"),
        (
            ["--listen", "lpt://127.0.0.1:0", "--listen", "lpt://[::]:0"],
            "server.listen[1]: whoever reaches lpt://[::]:0",
        ),
        (["--listen", "lpt://127.0.0.1:0/LPT1"], "leave the port's name out"),
        (["--pulse-hz", "-1"], "port[0].pulse_hz: "),
    ],
)
def test_what_simulate_cannot_serve(arguments: list[str], said: str) -> None:
    result = invoke("serve", "--simulate", *arguments)
    assert result.output.startswith("lptd: ")
    assert said in result.output
    assert result.exit_code == 2


# Configuration


def test_check_config_of_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "lptd.toml"
    path.write_text('[server]\nlisten = ["lpt://127.0.0.1:0"]\n[[port]]\nname = "A"\n[[port]]\nname = "B"\n')
    for arguments in ((str(path),), ("--config", str(path))):
        result = invoke("check-config", *arguments)
        assert result.output == f"{path}: good; port A, B on lpt://127.0.0.1:0\n"
        assert result.exit_code == 0


def test_check_config_names_every_error_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "lptd.toml"
    path.write_text('[server]\nlog_levle = "info"\n[[port]]\nsafe_data = 256\n[limits]\nmax_waiters = "many"\n')
    for command in (("check-config", str(path)), ("serve", "--config", str(path))):
        result = invoke(*command)
        lines = result.output.splitlines()
        assert [line.removeprefix(f"lptd: {path}: ").split(":")[0] for line in lines] == [
            "server.log_levle",
            "port[0].safe_data",
            "limits.max_waiters",
        ]
        assert result.exit_code == 2


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_without_config_the_default_file_is_read_and_if_missing_a_way_is_shown(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/etc/lptd/config.toml").exists():
        pytest.skip("this machine has one")
    result = invoke(command)
    first, second = result.output.splitlines()
    assert first == "lptd: /etc/lptd/config.toml: cannot be read: No such file or directory"
    assert second == "lptd: name a file with --config, or try `lptd serve --simulate`"
    assert result.exit_code == 2


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    check_one_line(run("serve", "--config", str(tmp_path / "no.toml")), "no.toml: cannot be read: No such file", 2)


# Serving


def test_a_tcp_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"lpt://127.0.0.1:{taken.getsockname()[1]}"
        check_one_line(run("serve", "--simulate", "--listen", url), f"cannot listen on {url}: the address is in use", 1)


def test_the_whole_network_is_served_if_it_is_said_in_words() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lpt_service", "serve", "--simulate", "--insecure", "--listen", "lpt://0.0.0.0:0"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on lpt://0.0.0.0:")
        process.terminate()
        assert process.wait(30) == 0


def test_a_host_that_is_not_ours_is_one_line() -> None:
    result = run("serve", "--simulate", "--insecure", "--listen", "lpt://192.0.2.1:0")
    check_one_line(result, "cannot listen on lpt://192.0.2.1:0", 1)


def test_a_start_on_the_whole_network_is_refused_with_the_way_out() -> None:
    result = run("serve", "--simulate", "--listen", "lpt://0.0.0.0:0")
    check_one_line(result, "could use the ports: make [[token]], [[role]]", 2)
    assert "--insecure" in result.stderr


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_the_pure_python_msgpack_is_refused(command: str) -> None:
    result = run(*[command, "--simulate"][: 2 if command == "serve" else 1], MSGPACK_PUREPYTHON="1")
    check_one_line(result, "pure-Python fallback", 1)
    assert "pip install" in result.stderr


def test_an_old_msgpack_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "msgpack_version", lambda: (1, 2, 3))
    result = invoke("serve", "--simulate")
    assert result.output.startswith("lptd: msgpack 1.2.3 can be made to use hundreds of megabytes")
    assert result.exit_code == 1


def test_an_old_python_is_refused() -> None:
    script = "import sys; sys.version_info = (3, 10, 4, 'final', 0); import lpt_service.cli"
    result = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.stderr.startswith("lptd needs Python 3.11 or newer, this is ")
    assert result.stderr.count("\n") == 1
    assert result.returncode == 1
