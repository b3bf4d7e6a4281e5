"""Those who are let in for a moment, to say who they are: when there are too many, somebody has to make room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Crowd(Generic[T]):
    """Each with the address that it came from; the one there longest first."""

    def __init__(self) -> None:
        self._hosts: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    def add(self, newcomer: T, host: str, most: int) -> T | None:
        """Let one in; beyond `most`, who is to leave for that, and is no longer in it.

        That is the one there longest of those whose address has most of all: whoever comes with many makes room by
        itself, and somebody with a slow line, who comes alone, need not be quicker than it.
        """
        self._hosts[newcomer] = host
        if len(self._hosts) <= most:
            return None
        crowded, _ = Counter(self._hosts.values()).most_common(1)[0]
        leaving = next(each for each, host in self._hosts.items() if host == crowded)
        del self._hosts[leaving]
        return leaving

    def discard(self, one: T) -> None:
        """It has said who it is, or is gone."""
        self._hosts.pop(one, None)
