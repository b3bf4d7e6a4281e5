"""The behavioural suite of tests/port, run in the guest: the simulation is true if ppdev passes what it passes."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from tests.vm.guest import Guest

# The first test waits until the guest is built.
pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

PC_PORT_PASSES = 35  # nobody can set its status inputs


def test_the_same_suite_for_simulated_ports_and_ppdev(guest: Guest) -> None:
    printed = guest.check_tests("tests/port/test_parallel_port.py", "-rp")
    passed: defaultdict[str, set[str]] = defaultdict(set)
    for test, kind, arguments in re.findall(r"^PASSED \S+::(\w+)\[([^]-]+)(.*)\]$", printed, re.MULTILINE):
        passed[kind].add(test + arguments)
    for kind in ("ppdev", "ppdev, output only"):
        assert passed[kind] == passed[f"simulated, as {kind}"], "each can what the other can"
        assert len(passed[kind]) > 40
    assert len(passed["ppdev, PC"]) >= PC_PORT_PASSES
    assert passed["ppdev, PC"] < passed["ppdev"]


def test_what_only_ppdev_has(guest: Guest) -> None:
    guest.check_tests("tests/vm/inside/check_ppdev_port.py")
