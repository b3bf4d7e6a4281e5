"""Fixtures of the port tests."""

from collections.abc import Iterator

import pytest

from lpt_service.port.base import ParallelPort
from tests.port.port_kinds import SIMULATED_KINDS, Bench, Peripheral, PortKind
from tests.port.ppdev_kinds import ppdev_kinds


@pytest.fixture(scope="session", params=(*SIMULATED_KINDS, *ppdev_kinds()), ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Iterator[PortKind]:
    """Each port kind, with all its tests in a row."""
    kind: PortKind = request.param
    with kind.prepare():
        yield kind


@pytest.fixture
def bench(kind: PortKind) -> Iterator[Bench]:
    """An open port of the kind, and its peripheral."""
    with kind.set_up() as bench:
        yield bench


@pytest.fixture
def port(bench: Bench) -> ParallelPort:
    return bench.port


@pytest.fixture
def peripheral(bench: Bench) -> Peripheral:
    return bench.peripheral
