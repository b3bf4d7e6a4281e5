"""For the tests of the server: a daemon, and nothing may log an error without saying so."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import trio

from lpt_service.server.daemon import Daemon
from tests.server.fakes import start_daemon


@pytest.fixture(autouse=True)
def errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The errors that have been logged. A test that expects one clears the list."""
    errors: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record.getMessage())

    handler = Collector(logging.ERROR)
    logger = logging.getLogger("lpt_service")
    logger.addHandler(handler)
    yield errors
    logger.removeHandler(handler)
    assert errors == []


@pytest.fixture
async def daemon(nursery: trio.Nursery) -> Daemon:
    """A daemon on a virtual clock: the test has to ask for `autojump_clock` by itself."""
    return await start_daemon(nursery)
