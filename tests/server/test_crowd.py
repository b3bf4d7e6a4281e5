"""Who makes room when too many are there."""

from __future__ import annotations

from lpt_service.server.crowd import Crowd


def test_nobody_leaves_while_there_is_room() -> None:
    crowd: Crowd[int] = Crowd()
    assert [crowd.add(number, "here", 3) for number in range(3)] == [None, None, None]
    crowd.discard(1)
    assert crowd.add(3, "here", 3) is None
    assert len(crowd) == 3


def test_of_one_each_it_is_the_one_there_longest() -> None:
    crowd: Crowd[int] = Crowd()
    assert [crowd.add(number, f"host {number}", 2) for number in range(5)] == [None, None, 0, 1, 2]


def test_who_comes_with_many_makes_room_by_itself() -> None:
    crowd: Crowd[str] = Crowd()
    crowd.add("slow", "far away", 4)
    left = [crowd.add(f"flood {number}", "near", 4) for number in range(100)]
    assert left == [None] * 3 + [f"flood {number}" for number in range(97)]
    assert crowd.add("another", "elsewhere", 4) == "flood 97"
    assert crowd.add("a third", "a third place", 4) == "flood 98"
    assert crowd.add("a fourth", "a fourth place", 4) == "slow"  # one each now


def test_with_room_for_one_the_newcomer_has_it() -> None:
    crowd: Crowd[str] = Crowd()
    assert [crowd.add(name, "here", 1) for name in "abc"] == [None, "a", "b"]


def test_discarding_one_that_is_not_there_is_fine() -> None:
    Crowd[int]().discard(5)
