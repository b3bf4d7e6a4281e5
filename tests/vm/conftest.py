"""The guest that the tests of this folder share: to boot takes ten seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.guest import Guest


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    with Guest() as guest:
        yield guest
