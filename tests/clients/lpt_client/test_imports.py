"""What is loaded, and what is not: lab PCs have msgpack and little else."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import lpt_client
from lpt_client import blocking
from lpt_client.errors import apart

# Another process whose path holds the SDK and msgpack and nothing else: neither trio nor click nor rich can be found.
_ALONE = """
import sys
class Only:
    names = {"lpt_client", "lpt_service", "msgpack"}
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in self.names and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Only())
"""


def run(code: str) -> str:
    folders = {Path(lpt_client.__file__).parents[1], Path(sys.modules["lpt_service"].__file__ or "").parents[1]}
    path = f"sys.path[:0] = {[str(folder) for folder in folders]!r}\n"
    return subprocess.run(
        [sys.executable, "-c", "import sys\n" + path + code], check=True, capture_output=True, text=True, timeout=30
    ).stdout


def test_the_blocking_client_needs_msgpack_alone() -> None:
    loaded = run(
        _ALONE
        + "import lpt_client.blocking\n"
        + "lpt_client.blocking.open_port, lpt_client.Interrupt, lpt_client.AccessDenied\n"
        + "print(*sys.modules)"
    )
    assert "msgpack" in loaded.split()
    assert not {"trio", "attr", "outcome", "exceptiongroup", "click", "rich", "pydantic"} & set(loaded.split())


def test_the_pure_python_msgpack_does_too() -> None:
    assert (
        run(
            "import os; os.environ['MSGPACK_PUREPYTHON'] = '1'\n"
            "import lpt_client.blocking, msgpack\n"
            "from lpt_client.conversation import Conversation\n"
            "print(msgpack.Packer.__module__, len(Conversation().hello(client='x')) > 10)"
        )
        == "msgpack.fallback True\n"
    )


@pytest.mark.parametrize("system", ["fcntl", "resource", "pwd", "grp", "termios"])
def test_nothing_of_unix_is_needed(system: str) -> None:
    run(f"sys.modules[{system!r}] = None\nimport lpt_client.blocking")


def test_a_system_without_unix_sockets() -> None:
    assert "no Unix sockets" in run(
        "import socket; del socket.AF_UNIX\n"
        "import lpt_client.blocking\n"
        "try: lpt_client.blocking.open_port()\n"
        "except lpt_client.ConnectFailed as exc: print(exc)"
    )


def test_trio_is_loaded_when_it_is_first_used() -> None:
    assert (
        run(
            "import lpt_client\nprint('trio' in sys.modules)\n"
            "lpt_client.open_port, lpt_client.Port, lpt_client.Interrupts\nprint('trio' in sys.modules)"
        )
        == "False\nTrue\n"
    )
    assert run("import lpt_client\nprint(lpt_client.blocking.open_port.__module__)") == "lpt_client.blocking\n"


def test_all_names_are_there() -> None:
    for name in lpt_client.__all__:
        assert getattr(lpt_client, name) is not None
        assert name in dir(lpt_client)
    for name in blocking.__all__:
        assert getattr(blocking, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        lpt_client.nothing_of_that_name  # noqa: B018 - the access is the test


def test_every_error_can_be_caught_at_the_top() -> None:
    errors = [value for value in vars(lpt_client).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) > 15
    assert all(issubclass(error, lpt_client.LptError) for error in errors)


# What is said of a missing library.


def failure(code: str) -> str:
    """How an ImportError reads that `code` raises where there is nothing but msgpack, or not even that."""
    return run(
        f"{_ALONE}try:\n    {code}\nexcept ImportError as exc:\n    print(type(exc).__name__, exc.name, exc, sep=': ')"
    )


@pytest.mark.parametrize("name", ["open_port", "Port", "Interrupts"])
@pytest.mark.parametrize("how", ["import lpt_client; lpt_client.{}", "from lpt_client import {}"])
def test_without_trio_it_says_what_to_type(name: str, how: str) -> None:
    assert failure(how.format(name)) == (
        f"ModuleNotFoundError: trio: lpt_client.{name} needs trio, which is not installed: pip install "
        '"lpt-service[trio]"; lpt_client.blocking does without\n'
    )


def test_without_trio_help_and_completion_leave_out_what_is_not_there() -> None:
    """They take a module's names from `dir`, or its `__all__`, and look at each."""
    looks = "import inspect, lpt_client; inspect.getmembers(lpt_client); print(pydoc.plaintext.document(lpt_client))"
    assert "class TimedOut" in run(f"import pydoc\n{_ALONE}{looks}")
    names = run(f"{_ALONE}import lpt_client; print(*dir(lpt_client))").split()
    assert "blocking" in names
    assert not {"open_port", "Port", "Interrupts"} & {*names}


@pytest.mark.parametrize("how", ["import lpt_client; lpt_client.blocking", "from lpt_client import blocking"])
def test_without_msgpack_the_blocking_client_says_what_to_type(how: str) -> None:
    assert failure(f"Only.names.discard('msgpack'); {how}") == (
        "ModuleNotFoundError: msgpack: lpt_client.blocking needs msgpack, which is not installed: pip install "
        '"lpt-service"\n'
    )


@pytest.mark.parametrize(
    "error",
    [
        lpt_client.AccessDenied(0xC0000022, "not yours"),
        lpt_client.Revoked("lease: held for 60 s"),
        lpt_client.ConnectionLost("it broke", "PULSE", may_have_run=True, goes_on=True),
        lpt_client.OtherProcess(1, 2),
        lpt_client.PortStopped(),
        lpt_client.PortClosed("the port has been closed"),
        lpt_client.UrlError("an address"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_kind_of_error_can_be_sent_to_another_process(error: lpt_client.LptError) -> None:
    """A pool's worker that raises it would else hang whoever waits for the result."""
    for copied in (pickle.loads(pickle.dumps(error)), apart(error)):  # noqa: S301 - our own
        assert type(copied) is type(error)
        assert str(copied) == str(error)
        assert vars(copied) == vars(error)


def test_an_error_that_cannot_be_copied_is_kept_without_its_traceback() -> None:
    class OddError(OSError):
        def __init__(self, one: int, *, two: int) -> None:
            super().__init__(one, two)

    with pytest.raises(OddError) as caught:
        raise OddError(1, two=2)
    assert caught.value.__traceback__ is not None
    assert apart(caught.value).__traceback__ is None
