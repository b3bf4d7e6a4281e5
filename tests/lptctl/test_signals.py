"""Signals as they come to lptctl."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

trio = pytest.importorskip("trio")

from lptctl import cli, signals  # noqa: E402 - after the check


async def test_one_that_comes_while_the_receiver_is_set_up_is_told_at_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C was told to neither the command nor the shell when it came in that moment."""
    told: list[int] = []
    open_receiver = trio.open_signal_receiver

    @contextmanager
    def open_late(*numbers: signal.Signals) -> Iterator[AsyncIterator[int]]:
        with open_receiver(*numbers) as receiver:
            signal.raise_signal(signal.SIGUSR1)
            yield receiver

    monkeypatch.setattr(trio, "open_signal_receiver", open_late)
    with trio.fail_after(30), signals.received([signal.SIGUSR1], told.append) as receiver:
        assert await anext(receiver) == signal.SIGUSR1
    assert told == [signal.SIGUSR1]


async def test_what_was_blocked_before_is_blocked_after() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        with signals.received([signal.SIGUSR1, signal.SIGUSR2]):
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()).isdisjoint({signal.SIGUSR1, signal.SIGUSR2})
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert signal.SIGUSR1 in blocked
    assert signal.SIGUSR2 not in blocked


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_ctrl_c_is_one_also_where_a_nursery_raises_it(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While trio starts, its main task raises it, and a nursery wraps it: that was exit code 1 and a traceback."""
    error: BaseException = KeyboardInterrupt()
    for _ in range(depth):
        error = BaseExceptionGroup("in a nursery", [error])

    def interrupted(**_arguments: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", interrupted)
    assert cli.main(["status"]) == 128 + signal.SIGINT


def test_other_groups_are_not_taken_for_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(**_arguments: object) -> None:
        raise BaseExceptionGroup("in a nursery", [SystemExit(3)])

    monkeypatch.setattr(cli.cli, "main", failing)
    with pytest.raises(BaseExceptionGroup):
        cli.main(["status"])
