"""The guest that the tests of this folder share: to boot takes ten seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.daemon import GuestDaemon, serving
from tests.vm.guest import Guest


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    with Guest() as guest:
        yield guest


@pytest.fixture(scope="module")
def daemon(guest: Guest) -> Iterator[GuestDaemon]:
    with serving(guest) as daemon:
        yield daemon
