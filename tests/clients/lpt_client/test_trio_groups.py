"""A nursery inside a block of the SDK is not seen from outside."""

# ruff: noqa: PT012 - what is tested is how blocks end

from __future__ import annotations

import pytest
import trio

from lpt_client.trio_groups import open_flat_nursery


async def test_one_exception_is_not_wrapped_and_keeps_its_context() -> None:
    with pytest.raises(KeyError) as caught:
        async with open_flat_nursery(), trio.open_nursery():
            try:
                raise ValueError
            except ValueError:
                raise KeyError  # noqa: B904 - without `from` is the point
    assert isinstance(caught.value.__context__, ValueError)


async def test_several_exceptions_stay_a_group() -> None:
    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(BaseException, match="Exceptions from Trio nursery") as caught:
        async with open_flat_nursery() as nursery:
            nursery.start_soon(fail, KeyError())
            nursery.start_soon(fail, ValueError())
    assert len(getattr(caught.value, "exceptions", ())) == 2


async def test_cancellation_goes_through() -> None:
    with trio.CancelScope() as scope:
        async with open_flat_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
