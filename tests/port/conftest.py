"""Fixtures of the port tests."""

from collections.abc import Iterator

import pytest

from lpt_service.port.base import ParallelPort
from tests.port.port_kinds import PORT_KINDS, Bench, Peripheral, PortKind


@pytest.fixture(params=PORT_KINDS, ids=lambda kind: kind.name)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """An open port of each kind, and its peripheral."""
    kind: PortKind = request.param
    with kind.set_up() as bench:
        yield bench


@pytest.fixture
def port(bench: Bench) -> ParallelPort:
    return bench.port


@pytest.fixture
def peripheral(bench: Bench) -> Peripheral:
    return bench.peripheral
