"""The soak of soak.py for a minute; `make soak` does it for thirty."""

from __future__ import annotations

import pytest

from tests.chaos import settings
from tests.chaos.soak import soak


@pytest.mark.system
@pytest.mark.timeout(600)
def test_a_minute_of_everything() -> None:
    print(soak(60, settings.seed(settings.LONG)))
