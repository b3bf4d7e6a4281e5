"""For every test. The SDK's tests run on Python 3.10 with requirements-sdk.lock alone: import no more unguarded."""

import signal
from pathlib import Path

import pytest

# What a shell runs in the background ignores SIGINT and SIGQUIT, what nohup runs SIGHUP, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # Python 3.10
    pass
else:
    # The same examples in every run, however slow the machine. Others: pytest --hypothesis-profile=default
    settings.register_profile("check", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("check")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates as `lptctl cert` makes them: see tests/certificates.py."""
    pytest.importorskip("cryptography")
    from tests.certificates import make

    folder: Path = tmp_path_factory.mktemp("certificates")
    make(folder)
    return folder
