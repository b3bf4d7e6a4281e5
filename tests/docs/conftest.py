"""A simulated daemon for the examples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lpt_service.protocol.url import Url
from tests.docs.daemon import running_daemon


@pytest.fixture(scope="session")
def daemon_url() -> Iterator[Url]:
    """A daemon that serves a simulated port with its plug in."""
    with running_daemon() as url:
        yield url
