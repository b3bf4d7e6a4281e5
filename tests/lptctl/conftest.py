"""Fixtures: a daemon a module, and lptctl called in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lptctl.processes import Lptctl, running_daemon


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The port of a simulated daemon, without pulses."""
    with running_daemon() as daemon:
        yield daemon.url


@pytest.fixture
def lptctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lptctl:
    """Lptctl in this process."""
    return Lptctl(capsys, monkeypatch)
