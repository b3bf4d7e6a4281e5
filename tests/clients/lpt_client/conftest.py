"""For the tests of the SDK's parts."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocking client, whose time is real, does not give up a fake daemon whose thread is slow for some seconds."""
    for module in ("blocking_keeper", "blocking_link", "blocking_ownership", "blocking_registering"):
        monkeypatch.setattr(f"lpt_client.{module}.CLEANUP_TIMEOUT_S", 60.0)
