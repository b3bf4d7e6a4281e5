"""For the tests of the server: nothing here may log an error without saying so."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


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
