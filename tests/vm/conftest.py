"""What the tests of this folder share: a guest, since to boot takes ten seconds, and the package, to build as long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.daemon import GuestDaemon, serving
from tests.vm.guest import Guest
from tests.vm.installed import build_package


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    with Guest() as guest:
        yield guest


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def daemon(guest: Guest) -> Iterator[GuestDaemon]:
    with serving(guest) as daemon:
        yield daemon
