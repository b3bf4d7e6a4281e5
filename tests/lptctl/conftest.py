"""Fixtures: a daemon a module, and lptctl called in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lptctl.processes import Lptctl, running_daemon, wait_until_idle


@pytest.fixture(scope="module")
def shared_url() -> Iterator[str]:
    """The port of a simulated daemon, without pulses."""
    with running_daemon() as daemon:
        yield daemon.url


@pytest.fixture
def url(shared_url: str) -> str:
    """The same, once the daemon has noticed that those of the test before are gone."""
    wait_until_idle(shared_url)
    return shared_url


@pytest.fixture
def lptctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lptctl:
    """Lptctl in this process."""
    return Lptctl(capsys, monkeypatch)
